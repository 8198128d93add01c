"""The disk cache: atomic entries, and keys that never collide between clips."""

import os

import numpy as np
import pytest

from latentsync.data.clips.disk_cache import DiskCache, file_fingerprint


def test_entries_round_trip(tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    DiskCache(tmp_path, "a 1").store_array("key", array)
    DiskCache(tmp_path, "a 1").store_record("key", {"frames": 3})
    again = DiskCache(tmp_path, "a 1")
    loaded = again.load_array("key")
    assert loaded is not None
    assert loaded.dtype == np.float16
    assert np.array_equal(loaded, array)
    assert again.load_record("key") == {"frames": 3}
    assert again.load_array("other") is None
    assert DiskCache(tmp_path, "a 2").load_array("key") is None


def test_damaged_entries_count_as_missing(tmp_path):
    cache = DiskCache(tmp_path, "a")
    cache.store_array("key", np.zeros(100))
    cache.store_record("key", {"frames": 3})
    for file in tmp_path.rglob("*.*"):
        file.write_bytes(file.read_bytes()[:9])
    assert cache.load_array("key") is None
    assert cache.load_record("key") is None


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    cache = DiskCache(tmp_path, "a")
    monkeypatch.setattr(os, "replace", full)
    cache.store_array("key", np.zeros(3))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_unwritable_folder_disables_the_cache_with_one_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = DiskCache(tmp_path / "file", "a")
    cache.store_array("key", np.zeros(3))
    cache.store_array("key", np.zeros(3))
    assert cache.load_array("key") is None
    assert len(caplog.records) == 1


def test_fingerprint_distinguishes_folders_and_changed_files(tmp_path):
    paths = [tmp_path / folder / "00001.mp4" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"same")
        os.utime(path, ns=(0, 0))
    before = [file_fingerprint(path) for path in paths]
    assert before[0] != before[1]
    assert file_fingerprint(paths[0]) == before[0]
    os.utime(paths[0], ns=(1, 1))
    assert file_fingerprint(paths[0]) != before[0]
    with pytest.raises(OSError):
        file_fingerprint(tmp_path / "absent.mp4")
