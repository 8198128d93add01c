"""Packages of the wheel: the code, and the repository's data folders as `latentsync._data`.

Everything else is in pyproject.toml. The data folders are mapped, not copied: `latentsync.runtime.resources` finds them
in a checkout and in a wheel.
"""

from setuptools import find_packages, setup

DATA = {
    "configs/syncnet": ["*.yaml"],
    "configs/training": ["*.yaml"],
    "configs/unet": ["*.yaml"],
    "assets": ["demo_speech.wav", "demo_video.mp4"],
    "assets/portraits": ["*.jpg", "*.json", "*.png", "*.md"],
    "checkpoints/demo": ["*.safetensors", "*.md"],
    "checkpoints/demo/vae": ["*.json", "*.safetensors"],
}
PACKAGES = {"latentsync._data." + folder.replace("/", "."): folder for folder in DATA}

setup(
    packages=[*find_packages(include=["latentsync", "latentsync.*"]), *PACKAGES],
    package_dir=PACKAGES,
    package_data={"latentsync": ["py.typed", "*.pyi"], **{name: DATA[folder] for name, folder in PACKAGES.items()}},
    include_package_data=False,
)
