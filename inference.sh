#!/usr/bin/env bash
# Lip-sync a video to a speech track. Installs missing requirements at the first run.
#
#   ./inference.sh                                            the bundled clip with the bundled speech
#   ./inference.sh --video_path me.mp4 --audio_path words.wav --video_out_path out.mp4
#   ./inference.sh --help                                     all options
#
# Inputs default to the files in assets/, the output to a free name in outputs/.
# Environment: LATENTSYNC_PYTHON  use this Python, which has all requirements, instead of .venv
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"
choose_python

# Sets `output` to a name in outputs/ that neither exists nor is claimed by another run.
free_output() {
    local stem=$1 name=$1 number=1
    mkdir -p "$root/outputs"
    while ! claim "$name" || [ -e "$root/outputs/$name.mp4" ] || [ -e "$root/outputs/$name.json" ]; do
        number=$((number + 1))
        name=${stem}_$number
    done
    output=$root/outputs/$name.mp4
}

# The lock is held by this process, and after exec by Python, until it exits in any way.
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

exec "$python" -m scripts.inference ${defaults[@]+"${defaults[@]}"} "$@"
