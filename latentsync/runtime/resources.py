"""Where the files that travel with the package lie."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
