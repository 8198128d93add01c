# shellcheck shell=bash
# What the published shell scripts share; they source this file.
#
# Environment: LATENTSYNC_PYTHON  use this Python, which has all requirements, instead of .venv

# The repository's root folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Sets `python`, after installing the requirements that are missing. Arguments go to setup_env.sh.
choose_python() {
    if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
        python=$LATENTSYNC_PYTHON
    else
        "$root/setup_env.sh" "$@"
        python=$root/.venv/bin/python
    fi
    # The working folder stays the user's, so that relative paths keep their meaning.
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    # The name in usage lines.
    export LATENTSYNC_PROGRAM=$0
}

# Replaces the script by the training of a network: train NETWORK [CONFIG | SECTION.KEY=VALUE ...]. One process per GPU.
train() {
    local network=$1 gpus
    shift
    choose_python --train
    gpus=${NUM_GPUS:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}
    [ $# -gt 0 ] || set -- "$root/configs/$network/demo.yaml"
    if [ "$gpus" -gt 1 ]; then
        exec "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" -m "scripts.train_$network" "$@"
    fi
    exec "$python" -m "scripts.train_$network" "$@"
}
