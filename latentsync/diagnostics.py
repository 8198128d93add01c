"""Diagnostics of an installation: what this machine can run, what is missing, and the remedy for each finding.

Nothing heavy is imported before `diagnose` is called. A module that cannot be imported becomes a finding instead of an
error: this module has to work when others do not.
"""

import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from latentsync.checkpoints import registry as checkpoints
from latentsync.checkpoints.folders import default_root
from latentsync.runtime.advice import install_command

Status = Literal["ok", "warning", "missing"]

_IMPORT_ERRORS = (ImportError, OSError, RuntimeError, AttributeError)
_GB = 1e9
_LIBRARIES = {
    "torch": "torch",
    "numpy": "numpy",
    "einops": "einops",
    "safetensors": "safetensors",
    "omegaconf": "omegaconf",
    "tqdm": "tqdm",
    "av": "av",
    "cv2": "opencv-python-headless",
}
_PRESET_MEMORY_GB = {"demo": 0.0, "1.5": 8.0, "1.6": 18.0}
_BUFFALO_FILES = ("det_10g.onnx", "2d106det.onnx")


@dataclass(frozen=True)
class Finding:
    """One check and its result."""

    area: str
    """Group it is shown under: system, libraries, media, faces, weights, output or package."""
    name: str
    """What was checked."""
    status: Status
    """ "ok"; "warning": works less well or optional; "missing": something cannot run."""
    detail: str
    """What was found."""
    remedy: str = ""
    """What to do, "" when there is nothing to do."""


def diagnose(root: Path | None = None, output: Path | None = None) -> list[Finding]:
    """Check everything that inference needs.

    Args:
        root: checkpoint folder; None checks the standard ones.
        output: folder that results will be written to; default `outputs` in the current folder.
    """
    root = default_root() if root is None else root
    output = Path("outputs") if output is None else output
    gpus = _gpus()
    return [
        _python(),
        *_libraries(),
        *_gpu_findings(gpus),
        _memory(),
        _encoder(),
        _mediapipe(),
        _insightface(root),
        *_weights(root, max((gpu["memory_gb"] for gpu in gpus), default=0.0)),
        _disk(root),
        _writable(output),
        _package(),
    ]


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether lip-sync can run here: nothing but weights is missing, and the weights of one preset are there."""
    findings = list(findings)
    others = all(finding.status != "missing" for finding in findings if finding.area != "weights")
    return others and any(finding.status != "missing" for finding in findings if finding.area == "weights")


def format_text(findings: Iterable[Finding]) -> str:
    """Return the findings as lines for a terminal, grouped by area in the order of their first appearance."""
    areas: dict[str, list[Finding]] = {}
    for finding in findings:
        areas.setdefault(finding.area, []).append(finding)
    lines = []
    for area, members in areas.items():
        lines.append(area)
        for finding in members:
            lines.append(f"  {finding.status:8} {finding.name}: {finding.detail}")
            if finding.remedy:
                lines.append(f"           -> {finding.remedy}")
    return "\n".join(lines)


def format_json(findings: Iterable[Finding]) -> str:
    """Return `{"can_run": bool, "findings": [{area, name, status, detail, remedy}, ...]}`."""
    findings = list(findings)
    return json.dumps({"can_run": can_run(findings), "findings": [asdict(finding) for finding in findings]}, indent=2)


def _python() -> Finding:
    version = platform.python_version()
    details = f"{version} on {platform.platform(terse=True)}, {os.cpu_count()} CPU cores"
    if (3, 10) <= sys.version_info < (3, 13):
        return Finding("system", "python", "ok", details)
    return Finding("system", "python", "warning", details, "use Python 3.10, 3.11 or 3.12, which this was tested with")


def _import(module: str) -> tuple[Any, str]:
    """Return the module and "", or None and why it cannot be imported."""
    try:
        return importlib.import_module(module), ""
    except _IMPORT_ERRORS as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _libraries() -> list[Finding]:
    findings = []
    for module, distribution in _LIBRARIES.items():
        imported, problem = _import(module)
        if imported is not None:
            findings.append(Finding("libraries", distribution, "ok", _version(distribution)))
        else:
            remedy = f"run: {install_command()}"
            findings.append(Finding("libraries", distribution, "missing", problem, remedy))
    if importlib.util.find_spec("torchvision") is not None:
        imported, problem = _import("torchvision")
        if imported is None:
            remedy = "pip uninstall torchvision: it is not needed, and a broken one breaks libraries that look for it"
            findings.append(Finding("libraries", "torchvision", "warning", problem, remedy))
    return findings


def _gpus() -> list[dict[str, Any]]:
    """Return name, memory in GB, architecture and whether this torch has kernels for it, for each CUDA device."""
    torch, _ = _import("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    gpus = []
    for index in range(torch.cuda.device_count()):
        details = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": f"cuda:{index}",
                "model": details.name,
                "memory_gb": details.total_memory / _GB,
                "architecture": f"sm_{details.major}{details.minor}",
                "supported": _has_kernels(details.major, details.minor, torch.cuda.get_arch_list()),
            }
        )
    return gpus


def _has_kernels(major: int, minor: int, built_for: list[str]) -> bool:
    """Whether compiled code of the same major version, or portable code of an older one, is in the list."""
    for entry in built_for:
        kind, _, number = entry.partition("_")
        digits = "".join(character for character in number if character.isdigit())
        if not digits:
            continue
        built = (int(digits[:-1] or 0), int(digits[-1]))
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
        if kind == "compute" and built <= (major, minor):
            return True
    return False


def _gpu_findings(gpus: list[dict[str, Any]]) -> list[Finding]:
    if not gpus:
        detail = "none that torch can use; the demo model is made for the CPU, versions 1.5 and 1.6 are not"
        remedy = "for a CUDA GPU, install its driver and a CUDA build of torch"
        return [Finding("system", "GPU", "warning", detail, remedy)]
    findings = []
    for gpu in gpus:
        details = f"{gpu['model']}, {gpu['memory_gb']:.0f} GB, {gpu['architecture']}"
        if gpu["supported"]:
            findings.append(Finding("system", gpu["name"], "ok", details))
        else:
            remedy = "install a torch build for this GPU: the installed one has no kernels for it"
            findings.append(Finding("system", gpu["name"], "missing", details, remedy))
    return findings


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB
    except (AttributeError, ValueError, OSError):
        return Finding("system", "memory", "ok", "size not known on this system")
    if total < 7.5:
        return Finding("system", "memory", "warning", f"{total:.1f} GB", "the full models need 8 GB while loading")
    return Finding("system", "memory", "ok", f"{total:.1f} GB")


def _encoder() -> Finding:
    av, problem = _import("av")
    if av is None:
        return Finding("media", "H.264 encoder", "missing", problem, f"run: {install_command()}")
    try:
        av.codec.Codec("libx264", "w")
    except ValueError as error:
        remedy = "install PyAV from PyPI (pip install --force-reinstall av): its wheels contain libx264"
        return Finding("media", "H.264 encoder", "missing", f"PyAV has no libx264: {error}", remedy)
    return Finding("media", "H.264 encoder", "ok", f"libx264 through PyAV {_version('av')}")


def _mediapipe() -> Finding:
    remedy = f"run: {install_command()}; mediapipe 0.10.21 is the newest that contains its models"
    with redirect_stderr(io.StringIO()):  # with protobuf 6 the import prints a harmless line about GetPrototype
        mediapipe, problem = _import("mediapipe")
    if mediapipe is None:
        return Finding("faces", "mediapipe", "missing", problem, remedy)
    models = Path(mediapipe.__file__).parent / "modules" / "face_landmark" / "face_landmark.tflite"
    if not hasattr(mediapipe, "solutions") or not models.is_file():
        detail = f"{_version('mediapipe')} comes without the face models"
        return Finding("faces", "mediapipe", "missing", detail, remedy)
    return Finding("faces", "mediapipe", "ok", f"{_version('mediapipe')}, the default detector")


def _insightface(root: Path) -> Finding:
    """The published system's detector, optional because its models are for non-commercial use only."""
    for module in ("onnxruntime", "insightface"):
        imported, problem = _import(module)
        if imported is None:
            remedy = f"only for crops exactly as published: {install_command('insightface')}"
            return Finding("faces", "insightface", "warning", f"optional; {problem}", remedy)
    folder = root / "auxiliary" / "models" / "buffalo_l"
    absent = [file for file in _BUFFALO_FILES if not (folder / file).is_file()]
    if absent:
        remedy = f"put the pack buffalo_l (non-commercial licence) into {folder}"
        return Finding("faces", "insightface", "warning", f"optional; models missing: {', '.join(absent)}", remedy)
    return Finding("faces", "insightface", "ok", f"with the pack buffalo_l at {folder} (non-commercial licence)")


def _weights(root: Path, gpu_memory_gb: float) -> list[Finding]:
    findings = []
    for preset, needed_gb in _PRESET_MEMORY_GB.items():
        absent = [name for name in checkpoints.GROUPS[preset] if checkpoints.find(name, root) is None]
        if absent:
            remedy = checkpoints.remedy(preset, root)
            findings.append(Finding("weights", preset, "missing", f"not found: {', '.join(absent)}", remedy))
        elif gpu_memory_gb < needed_gb:
            detail = f"all found; stated to need {needed_gb:.0f} GB of GPU memory, here {gpu_memory_gb:.0f} GB"
            findings.append(Finding("weights", preset, "warning", detail, "use a smaller preset if memory runs out"))
        else:
            findings.append(
                Finding(
                    "weights",
                    preset,
                    "ok",
                    f"all found, the U-Net at {checkpoints.find(checkpoints.GROUPS[preset][0], root)}",
                )
            )
    return findings


def _existing(folder: Path) -> Path:
    """The folder itself, or its nearest ancestor that exists."""
    folder = folder.absolute()
    return next(ancestor for ancestor in (folder, *folder.parents) if ancestor.is_dir())


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(_existing(root)).free / _GB
    detail = f"{free:.1f} GB free at {root} (each version needs 5.5 GB)"
    if free < 1:
        return Finding("output", "disk", "warning", detail, "make room before fetching weights or writing video")
    return Finding("output", "disk", "ok", detail)


def _writable(output: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(output)):
            return Finding("output", "folder", "ok", f"{output} can be written")
    except OSError as error:
        return Finding("output", "folder", "missing", f"{output} cannot be written: {error}", "choose another folder")


def _package() -> Finding:
    """Whether the pipeline itself can be imported, whatever the findings above say."""
    for module in ("latentsync.pipelines.lipsync_pipeline", "latentsync.build.pipeline"):
        imported, problem = _import(module)
        if imported is None:
            return Finding(
                "package", module, "missing", problem, f"see the findings above, then run: {install_command()}"
            )
    return Finding("package", "latentsync", "ok", "pipeline and builders import")
