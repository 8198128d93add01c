"""Where and how the networks run: devices, precision, memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, get_args

import torch

from latentsync.backends.memory import Memory
from latentsync.errors import ConfigError

# On a CPU more frames at once gain nothing and cost memory.
_VAE_BATCH = {"cpu": 2, "cuda": 4}


@dataclass(frozen=True)
class Placement:
    """Where and how the networks run.

    Attributes:
        devices: one or several of one kind; windows are distributed over them, and the first one does the rest.
        dtype: of weights and activations.
        compiled: fuse the networks by torch.compile, see `check_compiling`.
        memory: "low" processes smaller batches, for GPUs of 8 GB: slower, the same video up to rounding.
        window_batch_size: windows that go through the network together on each device.

    Raises:
        ConfigError: no device, devices of several kinds, or compilation, which takes memory, beside "low".
    """

    devices: tuple[torch.device, ...]
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    memory: Memory = "usual"
    window_batch_size: int = 1

    def __post_init__(self) -> None:
        if len({device.type for device in self.devices}) != 1:
            raise ConfigError(f"Devices: got {self.names or 'none'}; expected one or more of one kind")
        if self.memory not in get_args(Memory):
            raise ConfigError(f"Memory: got {self.memory!r}; expected {' or '.join(get_args(Memory))}")
        if self.window_batch_size < 1:
            raise ConfigError(f"Windows at once: got {self.window_batch_size}; expected 1 or more")
        if self.low and self.compiled:
            raise ConfigError("--compile takes the memory that --memory low saves; leave one of them out")

    @property
    def names(self) -> str:
        """The devices as the command line takes them."""
        return ",".join(map(str, self.devices))

    @property
    def vae_batch(self) -> int:
        """Maximum batch size of the VAE, in images."""
        return 1 if self.low else _VAE_BATCH.get(self.devices[0].type, 8)

    @property
    def low(self) -> bool:
        """Whether memory is to be saved."""
        return self.memory == "low"


def choose_placement(
    devices: str, dtype: str = "auto", *, compiled: bool = False, memory: str = "usual", window_batch_size: int = 1
) -> Placement:
    """A placement by names, see `choose_devices` and `choose_dtype`.

    Raises:
        ConfigError: an unknown name, a device that is not there, or choices that exclude each other.
    """
    chosen = choose_devices(devices)
    placement = Placement(chosen, choose_dtype(dtype, chosen[0]), compiled, cast(Memory, memory), window_batch_size)
    if compiled:
        check_compiling(chosen[0])
    return placement


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"Device {name!r} cannot be used: {reason}. Try --device auto or cpu") from error
    return device


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Devices by their names with commas between them, or "all" for every CUDA device.

    Raises:
        ConfigError: one of them is unknown, not there, or named twice.
    """
    if names != "all":
        chosen = tuple(choose_device(name.strip()) for name in names.split(","))
        if len(set(chosen)) < len(chosen) and chosen[0].type == "cuda":
            raise ConfigError(f"--devices {names}: a GPU is named twice, which would only take its memory twice")
        return chosen
    if not torch.cuda.is_available():
        raise ConfigError("--devices all means every CUDA device, and there is none; try --device auto")
    return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """A precision by name; "auto" takes float16 on CUDA, bfloat16 on a CPU that computes in it, else float32.

    Raises:
        ConfigError: unknown name.
    """
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name == "auto":
        if device.type == "cpu" and _cpu_has_bfloat16():
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in known:
        raise ConfigError(f"Unknown precision {name!r}; expected auto, {', '.join(known)}")
    return known[name]


def _cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself, twice as fast as float32; one that emulates it is far slower."""
    # Older releases of torch cannot tell.
    ask: Callable[[], Mapping[str, bool]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def check_compiling(device: torch.device) -> None:
    """See that networks can be compiled for a device.

    Raises:
        ConfigError: they cannot.
    """
    if device.type != "cuda" or not can_compile():
        raise ConfigError(f"--compile on {device}: needs a CUDA device, Triton and a C compiler (gcc); leave it out")


def can_compile() -> bool:
    """Whether torch.compile can work here: it needs CUDA, Triton and a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None and compiler is not None
