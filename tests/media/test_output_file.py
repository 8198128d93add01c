"""Files that appear when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentsync.errors import MediaError
from latentsync.media.output_file import atomic_output


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with atomic_output(path) as unfinished:
        unfinished.write_text("{}")
        assert not path.exists() and unfinished.suffix == ".json"
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"] and path.read_text() == "{}"


@pytest.mark.parametrize(("error", "told"), [(OSError(28, "No space left"), MediaError), (KeyError(), KeyError)])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: Exception, told: type[Exception]) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(told), atomic_output(path, overwrite=True) as unfinished:
        unfinished.write_text("half")
        raise error
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"] and path.read_text() == "old"


def test_a_name_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with pytest.raises(MediaError, match="not overwritten"), atomic_output(path) as unfinished:
        unfinished.write_text("new")
        path.write_text("mine")
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"] and path.read_text() == "mine"
