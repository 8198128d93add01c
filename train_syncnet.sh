#!/usr/bin/env bash
# Train a SyncNet. Installs what is missing at the first run.
#
#   ./train_syncnet.sh                                            the small demo configuration, on a made corpus
#   ./train_syncnet.sh configs/syncnet/demo.yaml run.max_train_steps=50 data.batch_size=4
#   ./train_syncnet.sh --help                                     all options
#
# The same command goes on where an earlier run ended. Environment:
#   NUM_GPUS           processes to start, one per GPU (default: all GPUs that are visible)
#   LATENTSYNC_PYTHON  use this Python, which has everything, instead of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
    python=$LATENTSYNC_PYTHON
else
    "$root/setup_env.sh" --train
    python=$root/.venv/bin/python
fi

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
gpus=${NUM_GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}
[ $# -gt 0 ] || set -- "$root/configs/syncnet/demo.yaml"

if [ "$gpus" -gt 1 ]; then
    exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m scripts.train_syncnet "$@"
fi
exec "$python" -m scripts.train_syncnet "$@"
