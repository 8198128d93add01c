#!/usr/bin/env bash
# Show where the time of one lip-sync goes. Installs missing requirements at the first run.
#
#   ./inference_profiler.sh --preview 2                the beginning of the bundled clip, into outputs/profile
#   ./inference_profiler.sh --video_path me.mp4 --audio_path words.wav --out outputs/profile_me
#   ./inference_profiler.sh --help                     all options: those of ./inference.sh, and a few more
#
# Environment: LATENTSYNC_PYTHON  use this Python, which has all requirements, instead of .venv
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"
choose_python
exec "$python" -m scripts.inference_profiler "$@"
