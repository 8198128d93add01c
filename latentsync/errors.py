"""The errors this package raises on purpose.

Every message says what failed, what was given, what is expected and what to do next, so that a command-line layer
can show it as it is. A bare ``Exception`` from here is a bug of ours, never a way of reporting bad input.
"""


class LatentSyncError(Exception):
    """Base of all errors that a user can act upon."""


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
    """A training run cannot go on: its figures are no numbers any more, or what it writes does not fit the disk."""


class DataError(LatentSyncError):
    """Training data is missing, or too much of it cannot be used."""
