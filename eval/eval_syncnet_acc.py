"""Evaluate a SyncNet on clips that it was not trained on.

    python -m eval.eval_syncnet_acc --config_path configs/syncnet/demo.yaml \
        --data_dir data/synthetic/val --out outputs/syncnet_accuracy

All options: ``python -m eval.eval_syncnet_acc --help``; docs/evaluation.md explains the metrics.
"""

import sys

from latentsync.cli.eval import evaluate_syncnet
from latentsync.cli.program import set_program_name

if __name__ == "__main__":
    set_program_name("python -m eval.eval_syncnet_acc")
    sys.exit(evaluate_syncnet())
