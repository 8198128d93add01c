"""Paired clips: two takes of one scene that differ only in the spoken words."""

import json
from pathlib import Path

from latentsync.data.clips.clip_reader import UnusableClip


def other_take(clip: Path) -> Path:
    """Return the other take named in a clip's sidecar (``"other_take": "00012_b.mp4"``), or the clip itself.

    Raises:
        UnusableClip: the sidecar exists but cannot be read.
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
