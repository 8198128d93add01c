#!/usr/bin/env bash
# Make .venv and install what inference needs; do nothing when that is done already.
#
#   ./setup_env.sh                    the pinned set of requirements.txt (CPU or CUDA, whichever this machine has)
#   ./setup_env.sh --train            also what training needs
#   ./setup_env.sh --dev              also the tools that ./run_tests.sh needs, and what training needs
#   ./setup_env.sh --insightface      also the InsightFace detector (its models may not be used commercially)
#   ./setup_env.sh --weights 1.6      also fetch published checkpoints: 1.5, 1.6 or train (may be repeated)
#
# Environment: PYTHON           the Python 3.10-3.12 to build .venv with (default: the first one found)
#              TORCH_INDEX_URL  package index to take torch from (default: chosen by looking for an NVIDIA GPU)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv
stamps=$venv/.setup
cpu_index=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$*" >&2; }
die() { say "setup_env.sh: $*"; exit 1; }
usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

has_gpu() { command -v nvidia-smi >/dev/null 2>&1; }

# The build of torch that is wanted: "index URL", "cuda" or "cpu". What was chosen before stays, save that a CPU build
# gives way once a GPU is there: another shell, or a login node without a GPU, must not reinstall gigabytes.
torch_flavour() {
    local before=
    [ ! -f "$stamps/base" ] || read -r before <"$stamps/base" || true
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        echo "index $TORCH_INDEX_URL"
    elif [ -n "$before" ] && [ "$before" != cpu ]; then
        echo "$before"
    elif has_gpu; then
        echo cuda
    else
        echo cpu
    fi
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        [ "$candidate" != "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a working Python 3.10, 3.11 or 3.12"
    done
    die "no Python 3.10, 3.11 or 3.12 found; install one, or name it: PYTHON=/path/to/python3.11 ./setup_env.sh"
}

make_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    local python
    python=$(find_python)
    say "Making .venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$venv" ||
        die "$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
}

pip_install() {
    local quiet=--quiet
    [ -t 2 ] && quiet=--progress-bar=on
    # Byte code is written at the first import anyway, and only for the modules that are used.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile "$quiet" "$@" >&2
}

cpu_index_answers() {
    "$venv/bin/python" - "$cpu_index/torch/" >/dev/null 2>&1 <<'PY'
import sys
import urllib.request

urllib.request.urlopen(sys.argv[1], timeout=5)
PY
}

# On CPU machines the plain registry may serve a CUDA build with gigabytes of CUDA packages.
install_torch() {
    local flavour=$1 index=() torch
    torch=$(grep -E '^torch==' "$root/requirements.txt")
    case $flavour in
        index\ *) index=(--index-url "${flavour#index }") ;;
        cpu) if [ "$(uname -s)" = Linux ] && cpu_index_answers; then index=(--index-url "$cpu_index"); fi ;;
    esac
    pip_install ${index[@]+"${index[@]}"} "$torch"
    if [ "$flavour" = cpu ] && compgen -G "$venv/lib/python3*/site-packages/nvidia_*" >/dev/null; then
        say "Note: this registry's torch brought CUDA packages. To avoid them: remove .venv and set TORCH_INDEX_URL."
    fi
}

# The requirement files of one set.
files_of() {
    case $1 in
        base) echo requirements.txt requirements-nodeps.txt ;;
        *) echo "requirements-$1.txt" ;;
    esac
}

wanted_stamp() {
    local files
    read -r -a files <<<"$(files_of "$1")"
    [ "$1" != base ] || torch_flavour
    (cd "$root" && cksum "${files[@]}")
}

up_to_date() {
    [ -x "$venv/bin/python" ] && [ -f "$stamps/$1" ] && [ "$(<"$stamps/$1")" = "$(wanted_stamp "$1")" ]
}

install_set() {
    local stamp flavour
    stamp=$(wanted_stamp "$1")
    case $1 in
        base)
            flavour=$(head -n 1 <<<"$stamp")
            say "Installing into .venv: about 1.5 GB on a CPU machine, 6 GB with CUDA"
            # pip would take the other build for the same version and leave it.
            if [ -f "$stamps/base" ] && [ "$(head -n 1 "$stamps/base")" != "$flavour" ]; then
                "$venv/bin/python" -m pip uninstall --quiet --yes torch
            fi
            # From here until the end nothing vouches for what is installed.
            rm -f "$stamps/base"
            install_torch "$flavour"
            pip_install -r "$root/requirements.txt"
            pip_install --no-deps -r "$root/requirements-nodeps.txt"
            ;;
        insightface)
            say "Installing the InsightFace detector"
            pip_install -c "$root/requirements.txt" -r "$root/requirements-insightface.txt"
            # With its dependencies it would bring a second OpenCV.
            pip_install --no-deps insightface==2.1
            ;;
        *)
            say "Installing requirements-$1.txt"
            pip_install -c "$root/requirements.txt" -r "$root/requirements-$1.txt"
            ;;
    esac
    mkdir -p "$stamps"
    printf '%s\n' "$stamp" >"$stamps/$1"
}

ensure_sets() {
    local name missing=()
    for name in "$@"; do up_to_date "$name" || missing+=("$name"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    # Two runs at once: the second waits, then finds everything done.
    exec 9<"$root/requirements.txt"
    ! command -v flock >/dev/null 2>&1 || flock 9
    make_venv
    for name in "${missing[@]}"; do up_to_date "$name" || install_set "$name"; done
    exec 9<&-
    say "Environment ready: .venv"
}

sets=(base)
weights=()
while [ $# -gt 0 ]; do
    case $1 in
        --dev) sets+=(train dev) ;;
        --train) sets+=(train) ;;
        --insightface) sets+=(insightface) ;;
        --weights) [ $# -ge 2 ] || die "--weights needs one of 1.5, 1.6, train"; weights+=("$2"); shift ;;
        --weights=*) weights+=("${1#*=}") ;;
        -h | --help) usage; exit 0 ;;
        *) die "unknown option $1; see ./setup_env.sh --help" ;;
    esac
    shift
done
for group in ${weights[@]+"${weights[@]}"}; do
    case $group in 1.5 | 1.6 | train) ;; *) die "--weights $group: expected 1.5, 1.6 or train" ;; esac
done

ensure_sets "${sets[@]}"
if [ ${#weights[@]} -gt 0 ]; then
    cd "$root"
    exec "$venv/bin/python" -m latentsync.checkpoints fetch "${weights[@]}"
fi
