#!/usr/bin/env bash
# All GPU work of the project in order of worth, each part under its own limit.
#
#   benchmarks/gpu/run_all.sh                 every part: about 17 minutes
#   benchmarks/gpu/run_all.sh fit speed       these alone
#   benchmarks/gpu/run_all.sh --trial         every part at toy size, on a CPU
#   LIMIT=540 benchmarks/gpu/run_all.sh ...   end after so many seconds
#
# $OUT (runs/gpu/out where it is unset) gets log.txt, results.tar.gz (made again after every part)
# and the pieces of the fitted base. A new part is a name in ALL, a limit and a command.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

ALL=(fit speed whole tests edit klein)
declare -A LIMITS=([fit]=350 [speed]=150 [whole]=170 [tests]=110 [edit]=60 [klein]=240)
BEGAN=$SECONDS
TRIAL=
[ "${1:-}" = --trial ] && TRIAL=--trial && shift
PARTS=("$@")
[ ${#PARTS[@]} -gt 0 ] || PARTS=("${ALL[@]}")
OUT=${OUT:-runs/gpu/out}
WORK=${WORK:-/tmp/customize_gpu$TRIAL}
RESULTS=$WORK/results

command_of() { # part, seconds
    local toy=() measuring=(--work "$WORK" --results "$RESULTS") device=cuda
    [ -n "$TRIAL" ] && device=cpu
    case $1 in
        fit)
            [ -n "$TRIAL" ] && toy=(--trial --runs "$WORK/fit")
            COMMAND=(benchmarks/gpu/fit.py "$OUT" --seconds $(($2 - 10)) "${toy[@]}")
            ;;
        speed)
            [ -n "$TRIAL" ] && toy=(--geometry toy --steps 1 --batch 1 --one_process)
            COMMAND=(benchmarks/train_speed.py --device $device --rounds 1 --steps 15
                "${measuring[@]}" "${toy[@]}")
            ;;
        whole)
            [ -n "$TRIAL" ] && toy=(--trial --cases "minute, K/V" "XL LoRA, 1024 px")
            [ -n "$TRIAL" ] || toy=(--cases "minute, K/V" "K/V, batch 1" "XL LoRA, 1024 px" "minute, LoRA")
            COMMAND=(benchmarks/train_whole.py "${measuring[@]}" "${toy[@]}")
            ;;
        klein)
            [ -n "$TRIAL" ] && toy=(--trial)
            COMMAND=(benchmarks/train_whole.py --work "$WORK" --results "$RESULTS/klein" "${toy[@]}"
                --cases "klein LoRA, 768 px" "klein LoRA, 1024 px")
            ;;
        edit)
            toy=(--geometry sd15 --count 16 --steps 20)
            [ -n "$TRIAL" ] && toy=(--geometry toy --count 2 --steps 2)
            COMMAND=(benchmarks/edit_speed.py --device $device --rounds 1 "${measuring[@]}" "${toy[@]}")
            ;;
        tests)
            [ -n "$TRIAL" ] && toy=(-k "not compiled") && export CUSTOMIZE_GPU=cpu
            COMMAND=(-m pytest -m gpu tests/gpu -q --junitxml "$RESULTS/tests.xml" "${toy[@]}")
            ;;
    esac
}

run_part() { # part
    local limit=${LIMITS[$1]} left began=$SECONDS status
    [ -n "$TRIAL" ] && limit=300 # its processor may be busy with other things
    left=$((${LIMIT:-900} - SECONDS + BEGAN - 10))
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -lt 30 ]; then
        echo "== $1: left out, $left s are too few"
        return 1
    fi
    command_of "$1" "$limit"
    echo "== $1: at most $limit s"
    timeout --kill-after 5 "$limit" "$PYTHON" "${COMMAND[@]}" 2>&1
    status=$?
    [ $status -eq 124 ] && echo "== $1: stopped at its limit"
    printf '%s\t%s\t%s s\n' "$1" "$status" $((SECONDS - began)) | tee -a "$RESULTS/parts.tsv"
    cp "$OUT/fit.json" "$RESULTS" 2>/dev/null
    tar -czf "$OUT/.results" -C "$RESULTS" . && mv "$OUT/.results" "$OUT/results.tar.gz"
    return $status
}

main() {
    local part failed=0
    # shellcheck source=benchmarks/gpu/prepare.sh
    source benchmarks/gpu/prepare.sh || return 2
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw \
            --format=csv -l 2 >"$RESULTS/gpu.csv" &
        trap "kill $!" EXIT
    fi
    for part in "${PARTS[@]}"; do
        run_part "$part" || failed=1
    done
    echo "== after $((SECONDS - BEGAN)) s (part, exit code, time):" && cat "$RESULTS/parts.tsv"
    return $failed
}

for part in "${PARTS[@]}"; do
    [ -n "${LIMITS[$part]:-}" ] || { echo "$part: no such part; there are ${ALL[*]}"; exit 2; }
done
rm -rf "$RESULTS"
mkdir -p "$OUT" "$RESULTS" || exit 2
OUT=$(cd "$OUT" && pwd)
main 2>&1 | tee "$OUT/log.txt"
