"""The exceptions that this package raises for conditions a user can act upon.

Every message states what failed, what was given, what is expected and what to do, so that a command line or server can
show it unchanged. Any other exception is a bug.
"""


class LatentSyncError(Exception):
    """Base class of all of them."""


class MediaError(LatentSyncError):
    """A video or audio file cannot be read or written as asked."""


class FaceNotFoundError(LatentSyncError):
    """No usable face was found where one is needed."""


class CheckpointError(LatentSyncError):
    """A weights file is missing, damaged, or does not fit the configuration."""


class ConfigError(LatentSyncError):
    """A configuration file or option has an unknown key or a value out of range."""


class DependencyError(LatentSyncError):
    """An optional library is needed; the message names the extra to install."""


class TrainingError(LatentSyncError):
    """A training run cannot continue: its loss is not finite, or its checkpoints do not fit on the disk."""


class DataError(LatentSyncError):
    """Training data is missing, or too much of it cannot be used."""


class Cancelled(LatentSyncError):
    """A run was stopped by its cancel event; nothing unfinished was left behind."""
