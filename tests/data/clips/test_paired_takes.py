"""Paired clips: the other take named in a sidecar."""

from pathlib import Path

import pytest

from latentsync.data.clips.clip_reader import UnusableClip
from latentsync.data.clips.paired_takes import other_take


@pytest.mark.parametrize(
    ("content", "name"),
    [(None, "a.mp4"), ("{}", "a.mp4"), ("[1, 2]", "a.mp4"), ('{"other_take": "b.mp4"}', "b.mp4")],
)
def test_the_sidecar_names_the_other_take(tmp_path: Path, content: str | None, name: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert other_take(tmp_path / "a.mp4") == tmp_path / name


def test_a_damaged_sidecar_makes_the_clip_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"other_take": ')
    with pytest.raises(UnusableClip, match="its sidecar a.json cannot be read"):
        other_take(tmp_path / "a.mp4")
