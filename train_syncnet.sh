#!/usr/bin/env bash
# Train a SyncNet. Installs missing requirements at the first run.
#
#   ./train_syncnet.sh                                            the small demo configuration, on a synthetic corpus
#   ./train_syncnet.sh configs/syncnet/demo.yaml run.max_train_steps=50 data.batch_size=4
#   ./train_syncnet.sh --help                                     all options
#
# Running the same command again resumes from the last checkpoint. Environment:
#   NUM_GPUS           processes to start, one per GPU (default: all visible GPUs)
#   LATENTSYNC_PYTHON  use this Python, which has all requirements, instead of .venv
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"
train syncnet "$@"
