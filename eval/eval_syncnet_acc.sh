#!/usr/bin/env bash
# Evaluate a SyncNet on clips that it was not trained on. The first run installs missing dependencies.
#
#   eval/eval_syncnet_acc.sh --data_dir data/synthetic/val    the bundled SyncNet, or another one with --checkpoint
#   eval/eval_syncnet_acc.sh --help                           all options
#
# Environment: LATENTSYNC_PYTHON  use this Python, with all dependencies installed, instead of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
    python=$LATENTSYNC_PYTHON
else
    "$root/setup_env.sh"
    python=$root/.venv/bin/python
fi

# Do not change the working directory: relative paths on the command line refer to it.
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m eval.eval_syncnet_acc "$@"
