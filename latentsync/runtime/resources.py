"""Locations of the files that ship with the package: configurations, assets and bundled weights.

A checkout keeps them in its root folder; a wheel carries them as `latentsync/_data` in the same layout.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

IS_CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()
"""Whether the package runs from a checkout, in which the shell scripts are at hand."""

REPOSITORY = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "_data"
"""Folder that contains ``configs``, ``assets`` and ``checkpoints``: the checkout, or the data of an installed wheel."""
