"""Train a SyncNet.

    python -m scripts.train_syncnet configs/syncnet/demo.yaml run.max_train_steps=100

The shell script ./train_syncnet.sh installs what is missing and starts one process per GPU; see docs/training.md.
"""

import sys

from latentsync.train_cli import train_syncnet

if __name__ == "__main__":
    sys.exit(train_syncnet())
