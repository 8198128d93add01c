#!/usr/bin/env bash
# Show where the time of one lip-sync goes. Installs what is missing at the first run.
#
#   ./inference_profiler.sh --preview 2                the beginning of the bundled clip, into outputs/profile
#   ./inference_profiler.sh --video_path me.mp4 --audio_path words.wav --out outputs/profile_me
#   ./inference_profiler.sh --help                     all options: those of ./inference.sh, and a few more
#
# Environment: LATENTSYNC_PYTHON  use this Python, which has everything, instead of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
    python=$LATENTSYNC_PYTHON
else
    "$root/setup_env.sh"
    python=$root/.venv/bin/python
fi

# Relative paths keep the meaning they have where the user stands, so the folder is not changed.
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m scripts.inference_profiler "$@"
