"""Atomic output files."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentsync.errors import MediaError
from latentsync.media.output_file import atomic_output


def test_file_appears_only_once_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with atomic_output(path) as partial:
        partial.write_text("{}")
        assert not path.exists() and partial.suffix == ".json"
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.json"] and path.read_text() == "{}"


@pytest.mark.parametrize(("error", "expected"), [(OSError(28, "No space left"), MediaError), (KeyError(), KeyError)])
def test_failure_keeps_the_existing_file(tmp_path: Path, error: Exception, expected: type[Exception]) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(expected), atomic_output(path, overwrite=True) as partial:
        partial.write_text("half")
        raise error
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.json"] and path.read_text() == "old"


def test_file_created_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(MediaError, match="not overwritten"), atomic_output(path) as partial:
        partial.write_text("new")
        path.write_text("mine")
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.json"] and path.read_text() == "mine"
