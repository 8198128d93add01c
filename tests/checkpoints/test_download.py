"""Downloads against a real local server: whole and right, or not there."""

import hashlib
import shutil

import pytest

from latentsync.checkpoints.download import DownloadOptions, download
from latentsync.errors import CheckpointError
from tests.file_server import FileServer, file_server

CONTENT = bytes(range(256)) * 12000  # 3 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = DownloadOptions(attempts=3, backoff=0.0, timeout=5.0)


@pytest.fixture
def server():
    with file_server() as running:
        running.files["/model.pt"] = CONTENT
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "checkpoints" / "sub" / "model.pt"


def get(server: FileServer, target, sha256=SHA256, options=QUICK, path="/model.pt"):
    download([server.url + path], target, sha256, options=options)


def only_file(target) -> bool:
    return [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_whole_file(server, target):
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert only_file(target)
    assert server.requests == [("/model.pt", None)]


def test_broken_off_answers_are_continued(server, target):
    server.break_after = [1_500_000, 7]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=1500000-", "bytes=1500007-"]


def test_next_run_continues_where_the_last_one_gave_up(server, target):
    server.break_after = [1_500_000, 0, 0, 0]
    with pytest.raises(CheckpointError, match="gave up after 3 tries"):
        get(server, target)
    assert not target.exists()
    assert target.with_name("model.pt.part").stat().st_size == 1_500_000
    server.requests.clear()
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/model.pt", "bytes=1500000-")]
    assert only_file(target)


def test_complete_partial_file_is_not_fetched_again(server, target):
    target.parent.mkdir(parents=True)
    target.with_name("model.pt.part").write_bytes(CONTENT)
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/model.pt", f"bytes={len(CONTENT)}-")]


def test_partial_file_of_another_version_is_replaced(server, target):
    target.parent.mkdir(parents=True)
    target.with_name("model.pt.part").write_bytes(b"old" * 1000)
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_partial_file_longer_than_the_servers_is_replaced(server, target):
    target.parent.mkdir(parents=True)
    target.with_name("model.pt.part").write_bytes(CONTENT + b"more")
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_server_without_ranges_starts_again(server, target):
    server.ranges = False
    server.break_after = [1_200_000]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_redirect_keeps_the_range(server, target):
    server.redirects["/resolve/model.pt"] = "/model.pt"
    server.break_after = [1_100_000]
    get(server, target, path="/resolve/model.pt")
    assert target.read_bytes() == CONTENT
    assert server.requests[-1] == ("/model.pt", "bytes=1100000-")


def test_wrong_checksum_leaves_nothing(server, target):
    with pytest.raises(CheckpointError, match=f"SHA-256 {SHA256}, expected {'0' * 64}"):
        get(server, target, sha256="0" * 64)
    assert list(target.parent.iterdir()) == []


def test_wrong_checksum_can_be_accepted(server, target):
    get(server, target, sha256="0" * 64, options=DownloadOptions(verify=False))
    assert target.read_bytes() == CONTENT


def test_missing_file_is_not_retried(server, target):
    with pytest.raises(CheckpointError, match="404"):
        get(server, target, path="/other.pt")
    assert len(server.requests) == 1
    assert list(target.parent.iterdir()) == []


def test_passing_errors_are_retried_a_bounded_number_of_times(server, target):
    server.fail_with = [503, 429]
    get(server, target)
    assert target.read_bytes() == CONTENT
    server.requests.clear()
    target.unlink()
    server.fail_with = [503] * 10
    with pytest.raises(CheckpointError, match="gave up after 3 tries"):
        get(server, target)
    assert len(server.requests) == 3


def test_second_address_is_used_when_the_first_fails(server, target):
    server.files["/wrong.pt"] = b"<html>please log in</html>"
    addresses = [f"{server.url}{path}" for path in ("/none.pt", "/wrong.pt", "/model.pt")]
    download(addresses, target, SHA256, options=QUICK)
    assert target.read_bytes() == CONTENT


def test_nobody_answers(target):
    with file_server() as gone:
        address = gone.url
    with pytest.raises(CheckpointError, match="gave up after 2 tries"):
        download([f"{address}/model.pt"], target, SHA256, options=DownloadOptions(attempts=2, backoff=0.0))


def test_other_schemes_are_refused(tmp_path, target):
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(CheckpointError, match="no http"):
        download([secret.as_uri()], target, SHA256)


def test_too_small_disk_is_noticed_beforehand(server, target, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(CheckpointError, match=r"GB free; make room"):
        download([f"{server.url}/model.pt"], target, SHA256, size=len(CONTENT))
    assert server.requests == []


def test_second_process_is_kept_out(server, target):
    fcntl = pytest.importorskip("fcntl")
    target.parent.mkdir(parents=True)
    with target.with_name("model.pt.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process"):
            get(server, target)
    get(server, target)


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot write"):
        get(server, tmp_path / "file" / "model.pt")


@pytest.mark.parametrize("bad", [{"attempts": 0}, {"backoff": -1.0}, {"timeout": 0.0}])
def test_impossible_options(bad):
    with pytest.raises(ValueError, match="attempts"):
        DownloadOptions(**bad)
