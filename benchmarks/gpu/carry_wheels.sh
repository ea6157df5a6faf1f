#!/usr/bin/env bash
# Fetch into .whl/ the wheels that the lent machine lacks; run it where there is a network, before.
#
#   benchmarks/gpu/carry_wheels.sh
#
# bitsandbytes is cut down to the library for CUDA 13.0: 43 MB become 4. Then it is checked that the
# wheels and what machine.txt lists hold all that is needed, and that everything fits in 64 MiB.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=python3
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python
PLATFORMS=()
for version in 2_28 2_27 2_24 2_17 2_12 2_5; do
    PLATFORMS+=(--platform "manylinux_${version}_x86_64")
done
PLATFORMS+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

pinned() { # names of wheels.txt with the versions of constraints.txt
    grep -v '^#' benchmarks/gpu/wheels.txt | while read -r name; do
        grep -i "^$name==" constraints.txt
    done
}

rm -rf .whl
mapfile -t WANTED < <(pinned)
[ "${#WANTED[@]}" -eq "$(grep -vc '^#' benchmarks/gpu/wheels.txt)" ] || {
    echo "a name of wheels.txt has no version in constraints.txt; found: ${WANTED[*]}"
    exit 2
}
"$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${PLATFORMS[@]}" --dest .whl "${WANTED[@]}"
"$PYTHON" benchmarks/gpu/slim_wheel.py .whl/bitsandbytes-*.whl
"$PYTHON" benchmarks/gpu/check_wheels.py --wheels .whl --machine benchmarks/gpu/machine.txt
KIB=$(git ls-files --cached --others --exclude-standard -z | du -ck --files0-from=- | tail -1 | cut -f1)
KIB=$((KIB + $(du -sk .whl | cut -f1)))
echo "tree and wheels: $((KIB / 1024)) MiB of 64"
[ $KIB -lt 65536 ] || { echo "more than travels; leave something out"; exit 2; }
