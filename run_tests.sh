#!/usr/bin/env bash
# Every check of this repository. Installs what is missing at the first run.
#
#   ./run_tests.sh                    style, types, import rules, shell scripts, tests (no GPU, no gigabytes)
#   ./run_tests.sh --full             also the tests that need gigabytes of memory or minutes (and a GPU, if there is one)
#   ./run_tests.sh tests/media -k fps  further arguments go to pytest
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

selection=(-m "not full and not gpu")
arguments=()
for argument in "$@"; do
    case $argument in
        --full) selection=() ;;
        -h | --help) sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
        *) arguments+=("$argument") ;;
    esac
done

./setup_env.sh --dev
export PATH=$PWD/.venv/bin:$PATH
# One thread per worker: more only makes the workers wait for each other.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

failed=()
check() {
    local name=$1
    shift
    printf '== %s\n' "$name"
    "$@" || failed+=("$name")
}

check "ruff check" ruff check --quiet .
check "ruff format" ruff format --quiet --check .
check "mypy" mypy --no-error-summary
check "import rules" lint-imports --no-logo
check "shellcheck" shellcheck ./*.sh eval/*.sh scripts/*.sh .ci/run

workers=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
[ "$workers" -le 8 ] || workers=8
if [ ${#failed[@]} -gt 0 ]; then printf 'FAILED before the tests: %s\n' "${failed[*]}"; fi
printf '== pytest\n'
status=0
python -m pytest -q -n "$workers" --dist worksteal ${selection[@]+"${selection[@]}"} ${arguments[@]+"${arguments[@]}"} ||
    status=$?
[ ${#failed[@]} -eq 0 ] || status=1
exit "$status"
