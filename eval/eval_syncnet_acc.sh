#!/usr/bin/env bash
# Evaluate a SyncNet on clips that it was not trained on. Installs missing requirements at the first run.
#
#   eval/eval_syncnet_acc.sh --data_dir data/synthetic/val    the bundled SyncNet, or another one with --checkpoint
#   eval/eval_syncnet_acc.sh --help                           all options
#
# Environment: LATENTSYNC_PYTHON  use this Python, which has all requirements, instead of .venv
set -euo pipefail

# shellcheck source=../scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
choose_python
exec "$python" -m eval.eval_syncnet_acc "$@"
