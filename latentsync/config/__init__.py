"""Typed configuration files."""

from latentsync.config.load import Config, SyncNetConfig, load_config, load_syncnet_config

__all__ = ["Config", "SyncNetConfig", "load_config", "load_syncnet_config"]
