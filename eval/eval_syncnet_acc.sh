#!/usr/bin/env bash
# Judge a SyncNet on clips that it was not trained on. Installs what is missing at the first run.
#
#   eval/eval_syncnet_acc.sh --data_dir data/synthetic/val    the bundled SyncNet, or another by --checkpoint
#   eval/eval_syncnet_acc.sh --help                           all options
#
# Environment: LATENTSYNC_PYTHON  use this Python, which has everything, instead of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
    python=$LATENTSYNC_PYTHON
else
    "$root/setup_env.sh"
    python=$root/.venv/bin/python
fi

# Relative paths keep the meaning they have where the user stands, so the folder is not changed.
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m eval.eval_syncnet_acc "$@"
