"""The list of published files: where they are looked for, fetched to and checked."""

import hashlib
import re

import pytest

from latentsync.checkpoints import registry as checkpoints
from latentsync.checkpoints.download import DownloadOptions
from latentsync.checkpoints.registry import BUNDLED, CHECKPOINTS, GROUPS, VAE_FOLDERS, Checkpoint
from latentsync.errors import CheckpointError
from tests.file_server import file_server

QUICK = DownloadOptions(attempts=2, backoff=0.0, timeout=5.0)


@pytest.fixture(autouse=True)
def no_hub_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


@pytest.fixture
def hub(monkeypatch):
    """A local hub with two small files that belong to the group "small"."""
    with file_server() as server:
        for name in ("one", "two"):
            content = name.encode() * 1000
            server.files[f"/me/repo/resolve/main/sub/{name}%20file.pt"] = content
            sha256 = hashlib.sha256(content).hexdigest()
            entry = Checkpoint(name, f"x/{name}.pt", "test", sha256, "MIT", "me/repo", f"sub/{name} file.pt")
            monkeypatch.setitem(CHECKPOINTS, name, entry)
        monkeypatch.setitem(GROUPS, "small", ("one", "two"))
        yield server


def put(root, place, content=b"x"):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_entry_is_complete():
    assert set(CHECKPOINTS) == {entry.name for entry in CHECKPOINTS.values()}
    for entry in CHECKPOINTS.values():
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert entry.purpose
        assert entry.licence
        assert entry.urls("https://hub")
        assert all(address.startswith("https://") for address in entry.urls("https://hub"))
    assert len({entry.path for entry in CHECKPOINTS.values()}) == len(CHECKPOINTS)
    for members in GROUPS.values():
        assert set(members) <= {*CHECKPOINTS, *BUNDLED, *VAE_FOLDERS}


def test_openai_addresses_carry_the_same_checksum():
    """OpenAI's addresses contain the SHA-256."""
    for entry in (CHECKPOINTS["whisper-tiny"], CHECKPOINTS["whisper-small"]):
        assert entry.sha256 == entry.url.split("/")[-2]


def test_fetch_and_resolve(hub, tmp_path):
    paths = checkpoints.fetch(["small", "one"], tmp_path, hub.url, QUICK)
    assert paths == [tmp_path / "x" / "one.pt", tmp_path / "x" / "two.pt"]
    assert paths[1].read_bytes() == b"two" * 1000
    assert checkpoints.resolve("two", tmp_path) == paths[1]
    assert checkpoints.verify(["small"], tmp_path) == []
    hub.requests.clear()
    assert checkpoints.fetch(["small"], tmp_path, hub.url, QUICK) == paths
    assert hub.requests == []


def test_mirror_from_the_environment(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    assert checkpoints.fetch(["one"], tmp_path, options=QUICK)[0].is_file()


def test_one_failure_does_not_stop_the_others(hub, tmp_path):
    hub.files.pop("/me/repo/resolve/main/sub/one%20file.pt")
    with pytest.raises(CheckpointError, match=r"one\.pt.*404"):
        checkpoints.fetch(["small"], tmp_path, hub.url, QUICK)
    assert checkpoints.find("one", tmp_path) is None
    assert checkpoints.find("two", tmp_path) is not None


def test_verify_names_what_is_wrong(hub, tmp_path):
    put(tmp_path, "x/one.pt", b"damaged")
    problems = checkpoints.verify(["small"], tmp_path)
    assert len(problems) == 2
    assert hashlib.sha256(b"damaged").hexdigest() in problems[0]
    assert "missing" in problems[1]


def test_own_layout_comes_before_the_flat_one(tmp_path):
    flat = put(tmp_path, "latentsync_unet.pt")
    assert checkpoints.resolve("unet-1.5", tmp_path) == flat
    assert checkpoints.resolve("unet-1.6", tmp_path) == flat
    own = put(tmp_path, "1.6/latentsync_unet.pt")
    assert checkpoints.resolve("unet-1.6", tmp_path) == own
    assert checkpoints.resolve("unet-1.5", tmp_path) == flat


def test_flat_file_of_one_version_is_not_taken_for_the_other(tmp_path):
    with (tmp_path / "latentsync_unet.pt").open("wb") as file:
        file.truncate(CHECKPOINTS["unet-1.5"].size)  # sparse: takes no room
    assert checkpoints.find("unet-1.5", tmp_path) is not None
    assert checkpoints.find("unet-1.6", tmp_path) is None


@pytest.mark.parametrize("place", ["sd-vae-ft-mse", "vae", "stabilityai/sd-vae-ft-mse"])
@pytest.mark.parametrize("weights", ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"])
def test_vae_is_a_whole_folder(tmp_path, place, weights):
    put(tmp_path, f"{place}/config.json")
    assert checkpoints.find("vae", tmp_path) is None
    put(tmp_path, f"{place}/{weights}")
    assert checkpoints.resolve("vae", tmp_path) == tmp_path / place


def test_vae_in_the_hub_cache(tmp_path):
    snapshot = "hf-home/hub/models--stabilityai--sd-vae-ft-mse/snapshots/abc"
    put(tmp_path, f"{snapshot}/config.json")
    put(tmp_path, f"{snapshot}/diffusion_pytorch_model.bin")
    assert checkpoints.resolve("vae", tmp_path / "checkpoints") == tmp_path / snapshot


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(CheckpointError, match=r"fetch unet-1\.6"):
        checkpoints.resolve("unet-1.6", tmp_path)
    with pytest.raises(CheckpointError, match="part of this repository"):
        checkpoints.resolve("demo-unet", tmp_path)
    with pytest.raises(CheckpointError, match="unknown checkpoint 'unet-2'; groups: 1.5"):
        checkpoints.resolve("unet-2", tmp_path)
    with pytest.raises(CheckpointError, match="group"):
        checkpoints.resolve("1.6", tmp_path)
