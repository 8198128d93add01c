#!/usr/bin/env bash
# Lip-sync a video to a speech track. Installs what is missing at the first run.
#
#   ./inference.sh                                            the bundled clip with the bundled speech
#   ./inference.sh --video_path me.mp4 --audio_path words.wav --video_out_path out.mp4
#   ./inference.sh --help                                     all options
#
# What is not given comes from assets/; an output that is not named goes to a free name in outputs/.
# Environment: LATENTSYNC_PYTHON  use this Python, which has everything, instead of .venv
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ -n "${LATENTSYNC_PYTHON:-}" ]; then
    python=$LATENTSYNC_PYTHON
else
    "$root/setup_env.sh"
    python=$root/.venv/bin/python
fi

# Prints a name in outputs/ that neither exists nor is about to be written by another run.
free_output() {
    local stem=$1 name=$1 number=1
    mkdir -p "$root/outputs"
    while ! claim "$name" || [ -e "$root/outputs/$name.mp4" ] || [ -e "$root/outputs/$name.json" ]; do
        number=$((number + 1))
        name=${stem}_$number
    done
    output=$root/outputs/$name.mp4
}

# The lock is held by this process, and after exec by Python, until it ends however it ends.
claim() {
    command -v flock >/dev/null 2>&1 && [ -d "$root/.venv" ] || return 0
    mkdir -p "$root/.venv/.outputs"
    exec 8>>"$root/.venv/.outputs/$1"
    flock --nonblock 8
}

video=$root/assets/demo_video.mp4
stem=demo
given=" "
previous=
for argument in "$@"; do
    case $argument in
        --video_path | --audio_path | --video_out_path | --tasks) given+="$argument " ;;
        --video_path=* | --audio_path=* | --video_out_path=* | --tasks=*) given+="${argument%%=*} " ;;
        -h | --help) given+="--help " ;;
    esac
    if [ "$previous" = --video_path ]; then stem=$(basename -- "$argument"); fi
    case $argument in --video_path=*) stem=$(basename -- "${argument#*=}") ;; esac
    previous=$argument
done

defaults=()
case $given in
    *" --help "* | *" --tasks "*) ;;
    *)
        case $given in *" --video_path "*) stem=${stem%.*}_lipsync ;; *) defaults+=(--video_path "$video") ;; esac
        case $given in *" --audio_path "*) ;; *) defaults+=(--audio_path "$root/assets/demo_speech.wav") ;; esac
        case $given in
            *" --video_out_path "*) ;;
            *) free_output "$stem"; defaults+=(--video_out_path "$output") ;;
        esac
        ;;
esac

# Relative paths keep the meaning they have where the user stands, so the folder is not changed.
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m scripts.inference ${defaults[@]+"${defaults[@]}"} "$@"
