"""The doctor: sees what is there, names what is missing with a remedy, and never falls over itself."""

import importlib
import json
from types import SimpleNamespace

import pytest

from latentsync import diagnostics
from latentsync.checkpoints import registry as checkpoints
from latentsync.diagnostics import Finding, can_run, diagnose, format_json, format_text


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))


@pytest.fixture
def broken_imports(monkeypatch):
    """Let imports of chosen modules fail in a given way."""
    failures: dict[str, Exception] = {}
    real = importlib.import_module

    def imported(name, package=None):
        if name in failures:
            raise failures[name]
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", imported)
    return failures


def put_demo(root):
    for place in (
        *checkpoints.BUNDLED.values(),
        "demo/vae/config.json",
        "demo/vae/diffusion_pytorch_model.safetensors",
    ):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_weights_are_found_per_preset(tmp_path):
    put_demo(tmp_path)
    found = by_name(diagnose(tmp_path, tmp_path))
    assert found["demo"].status == "ok"
    assert found["1.6"].status == "missing"
    assert "unet-1.6" in found["1.6"].detail
    assert "fetch 1.6" in found["1.6"].remedy
    assert str(tmp_path) in found["1.6"].remedy


def test_everything_missing_still_gives_a_report(broken_imports, tmp_path):
    for module in (*diagnostics._LIBRARIES, "mediapipe", "insightface", "onnxruntime"):
        broken_imports[module] = ImportError(f"No module named {module!r}")
    broken_imports["av"] = OSError("libx264.so: cannot open shared object file")
    findings = diagnose(tmp_path / "none", tmp_path)
    found = by_name(findings)
    assert found["torch"].status == "missing"
    assert "libx264.so" in found["av"].detail
    assert found["H.264 encoder"].status == "missing"
    assert found["mediapipe"].status == "missing"
    assert found["insightface"].status == "warning"
    assert not can_run(findings)
    assert all(finding.remedy for finding in findings if finding.status != "ok")


def test_mediapipe_without_models_is_named(monkeypatch, tmp_path):
    (tmp_path / "mediapipe").mkdir()
    bare = SimpleNamespace(__file__=str(tmp_path / "mediapipe" / "__init__.py"))
    monkeypatch.setattr(diagnostics, "_import", lambda module: (bare, ""))
    finding = diagnostics._mediapipe()
    assert finding.status == "missing"
    assert "0.10.21" in finding.remedy


def test_broken_torchvision_is_reported(broken_imports, monkeypatch):
    broken_imports["torchvision"] = RuntimeError("operator torchvision::nms does not exist")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    found = by_name(diagnostics._libraries())
    assert found["torchvision"].status == "warning"
    assert "uninstall" in found["torchvision"].remedy


@pytest.mark.parametrize(
    ("major", "minor", "built_for", "expected"),
    [
        (9, 0, ["sm_80", "sm_90"], True),
        (8, 9, ["sm_80", "sm_86"], True),
        (12, 0, ["sm_80", "sm_90"], False),
        (12, 0, ["sm_90", "compute_90"], True),
        (10, 3, ["sm_100a"], True),
        (7, 0, ["sm_75"], False),
        (8, 0, [], False),
    ],
)
def test_kernels_for_a_gpu(major, minor, built_for, expected):
    assert diagnostics._has_kernels(major, minor, built_for) is expected


def test_gpu_memory_is_compared_with_the_presets_need(tmp_path):
    for place in ("1.6/latentsync_unet.pt", "whisper/tiny.pt", "vae/config.json", "vae/diffusion_pytorch_model.bin"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert by_name(diagnostics._weights(tmp_path, 24.0))["1.6"].status == "ok"
    small = by_name(diagnostics._weights(tmp_path, 12.0))["1.6"]
    assert small.status == "warning"
    assert "18 GB" in small.detail


def test_gpu_without_kernels_is_a_problem(tmp_path):
    gpu = {"name": "cuda:0", "model": "RTX", "memory_gb": 24.0, "architecture": "sm_120", "supported": False}
    (finding,) = diagnostics._gpu_findings([gpu])
    assert finding.status == "missing"
    assert "sm_120" in finding.detail


def test_output_folder_need_not_exist(tmp_path):
    assert diagnostics._writable(tmp_path / "new" / "folder").status == "ok"
    assert not (tmp_path / "new").exists()


def test_output_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(diagnostics.tempfile, "NamedTemporaryFile", refuse)
    finding = diagnostics._writable(tmp_path)
    assert finding.status == "missing"
    assert "read-only" in finding.detail


def test_can_run_needs_one_preset_only():
    fine = Finding("libraries", "torch", "ok", "")
    weights = [Finding("weights", "demo", "ok", ""), Finding("weights", "1.6", "missing", "", "fetch")]
    assert can_run([fine, *weights])
    assert not can_run([fine, weights[1]])
    assert not can_run([Finding("libraries", "torch", "missing", ""), *weights])


def test_text_and_json_say_the_same(tmp_path):
    findings = diagnose(tmp_path, tmp_path)
    text = format_text(findings)
    parsed = json.loads(format_json(findings))
    assert parsed["can_run"] is can_run(findings)
    assert [Finding(**entry) for entry in parsed["findings"]] == findings
    for finding in findings:
        assert f"{finding.name}: {finding.detail}" in text
        assert finding.remedy in text
