"""From configurations to training objectives: published keys and the ``losses`` section become loss objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latentsync.config.load import Config, SyncNetConfig
from latentsync.config.sections import LossConfig
from latentsync.errors import ConfigError
from latentsync.losses.loss import NEEDS, LossClass, find_loss, loss_needs, make_loss
from latentsync.losses.objective import Objective
from latentsync.losses.terms import SYNCNET_LOSSES, UNET_LOSSES
from latentsync.losses.weighted_sum import TOTAL

if TYPE_CHECKING:
    from latentsync.build.networks import FrozenNetworks


def unet_losses(config: Config) -> dict[str, LossConfig]:
    """The losses that count, by name: those of the published keys of ``run``, then those of the section ``losses``.

    Raises:
        ConfigError: a name is taken, or an entry names no target.
    """
    run = config.run
    published = {
        "recon": LossConfig("recon", run.recon_loss_weight),
        "motion": LossConfig("motion", run.motion_loss_weight),
    }
    if run.use_syncnet:
        published["sync"] = LossConfig("sync", run.sync_loss_weight)
    if run.pixel_space_supervise:
        perceptual = "lpips" if run.perceptual == "lpips" else "pyramid"
        published["perceptual"] = LossConfig(perceptual, run.perceptual_loss_weight)
        published["trepa"] = LossConfig("trepa", run.trepa_loss_weight, {"size": config.trepa.image_size})
        published["pixel"] = LossConfig("pixel", run.pixel_loss_weight)
    return _active(published, config.losses)


def syncnet_losses(config: SyncNetConfig) -> dict[str, LossConfig]:
    """As `unet_losses`, of a SyncNet."""
    published = {
        "bce": LossConfig("bce"),
        "contrastive": LossConfig("contrastive", config.run.contrastive_weight),
        "mouth": LossConfig("mouth", config.run.mouth_weight),
    }
    return _active(published, config.losses)


def unet_loss_needs(config: Config) -> frozenset[str]:
    """What the losses of a U-Net need, see `latentsync.losses.loss.NEEDS`.

    Raises:
        ConfigError: a target cannot be found or imported.
    """
    found = [
        loss_needs(name, find_loss(name, entry.target, UNET_LOSSES)) for name, entry in unet_losses(config).items()
    ]
    return frozenset().union(*found)


def build_unet_objective(config: Config, networks: FrozenNetworks, chunk_size: int) -> Objective:
    """The objective of U-Net training.

    Args:
        config: see `unet_losses`.
        networks: holds every critic that the losses need.
        chunk_size: frames that LPIPS compares at a time.

    Raises:
        ConfigError: an entry names no importable class, or arguments that it does not take.
    """
    entries = unet_losses(config)
    for entry in entries.values():
        if entry.target == "lpips":
            entry.kwargs = {"chunk_size": chunk_size, **entry.kwargs}
    return _objective(entries, UNET_LOSSES, vars(networks))


def build_syncnet_objective(config: SyncNetConfig) -> Objective:
    """The objective of SyncNet training; errors as `build_unet_objective`."""
    return _objective(syncnet_losses(config), SYNCNET_LOSSES, {})


def _objective(
    entries: Mapping[str, LossConfig], registered: Mapping[str, LossClass], critics: Mapping[str, Any]
) -> Objective:
    losses = {}
    for name, entry in entries.items():
        loss_class = find_loss(name, entry.target, registered)
        wanted = [keyword for need in sorted(loss_needs(name, loss_class)) for keyword in NEEDS[need]]
        missing = [keyword for keyword in wanted if keyword not in critics]
        if missing:
            raise ConfigError(f"losses.{name}: needs {missing}, which this training does not have")
        losses[name] = make_loss(name, loss_class, entry.kwargs, {keyword: critics[keyword] for keyword in wanted})
    return Objective(losses, {name: entry.weight for name, entry in entries.items()})


def _active(published: Mapping[str, LossConfig], own: Mapping[str, LossConfig]) -> dict[str, LossConfig]:
    active = {name: entry for name, entry in published.items() if entry.weight}
    for name, entry in own.items():
        if name in (*published, TOTAL, "accuracy"):
            raise ConfigError(f"losses.{name}: the name is taken by a loss of the section run; choose another")
        if not entry.target:
            raise ConfigError(
                f"losses.{name}.target is empty; expected the dotted path of a class, such as my_package.losses.MyLoss"
            )
        if entry.weight:
            active[name] = entry
    return active
