"""Train a SyncNet.

    python -m scripts.train_syncnet configs/syncnet/demo.yaml run.max_train_steps=100

The shell script ./train_syncnet.sh installs what is missing and starts one process per GPU; see docs/training.md.
"""

import sys

if __name__ == "__main__":
    # Data loader processes import this file again and need none of this.
    from latentsync.cli.program import set_program_name
    from latentsync.cli.train import train_syncnet

    set_program_name("python -m scripts.train_syncnet")
    sys.exit(train_syncnet())
