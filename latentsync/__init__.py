"""LatentSync: audio-conditioned latent diffusion that makes a talking-head video follow another speech track.

>>> import latentsync
>>> pipe = latentsync.load_pipeline("demo")
>>> pipe("me.mp4", "words.wav", "out.mp4")

Everything here is loaded on first use, so that importing the package costs nothing; ``__init__.pyi`` gives type
checkers and editors the same names. See ``docs/python_api.md``.
"""

from __future__ import annotations

from latentsync import errors

__all__ = [
    "LipsyncJob",
    "LipsyncPipeline",
    "LipsyncResult",
    "ModelInfo",
    "__version__",
    "available_models",
    "errors",
    "load_pipeline",
]

_HOMES = {
    "LipsyncJob": "latentsync.pipelines.job",
    "LipsyncPipeline": "latentsync.api",
    "LipsyncResult": "latentsync.pipelines.job",
    "ModelInfo": "latentsync.build.presets",
    "available_models": "latentsync.build.presets",
    "load_pipeline": "latentsync.api",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    import importlib

    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version of the checkout that the package is imported from, or else of the installed distribution."""
    import re
    from importlib import metadata
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file():
        text = project.read_text(encoding="utf-8")
        found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
        if found and re.search(r'^name = "latentsync"$', text, re.MULTILINE):
            return found[1]
    return metadata.version("latentsync")
