"""Clips of a list file or a folder."""

import pytest

from latentsync.data.clips.clip_list import list_clips
from latentsync.errors import DataError


def test_list_has_precedence_and_its_paths_are_relative_to_its_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "c.mp4"
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "train.txt"
    file.write_text(f"\ufeffclips/b b.mp4\r\n\n{elsewhere}\nclips/ä.mp4", encoding="utf-8")
    (tmp_path / "other.mp4").touch()
    folder = tmp_path / "lists" / "clips"
    assert list_clips(file, tmp_path) == [folder / "b b.mp4", elsewhere, folder / "ä.mp4"]


def test_folder_is_searched_with_its_subfolders(tmp_path):
    for name in ("b.mp4", "a/00001.mp4", "c/00001.MP4", "a/.00002.partial.mp4", ".hidden/x.mp4", "b.json", "b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_clips(folder=tmp_path) == [tmp_path / name for name in ("a/00001.mp4", "b.mp4", "c/00001.MP4")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "list file"),
        ({"fileslist": "empty.txt"}, "empty.txt"),
        ({"fileslist": "absent.txt"}, "absent.txt"),
        ({"folder": "bare"}, "bare"),
        ({"folder": "absent"}, "absent"),
    ],
)
def test_missing_or_empty_sources_are_refused(tmp_path, arguments, words):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=words):
        list_clips(**{name: tmp_path / value for name, value in arguments.items()})
