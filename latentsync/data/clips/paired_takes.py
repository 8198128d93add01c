"""Clips that come as two takes of one scene, which differ in the words."""

import json
from pathlib import Path

from latentsync.data.clips.clip_reader import UnusableClip


def other_take(clip: Path) -> Path:
    """The other take that a clip's sidecar names (``"other_take": "00012_b.mp4"``), or the clip itself.

    Raises:
        UnusableClip: there is a sidecar, and it cannot be read.
    """
    sidecar = clip.with_suffix(".json")
    if not sidecar.is_file():
        return clip
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableClip(clip, f"its sidecar {sidecar.name} cannot be read ({error})") from error
    name = content.get("other_take") if isinstance(content, dict) else None
    return clip if name is None else clip.with_name(str(name))
