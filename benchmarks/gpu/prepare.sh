# Sourced by run_all.sh: choose Python, install the carried wheels once, check that all is there.
#
# Where there is a .venv its Python is used; else python3, and .whl/ is installed in /tmp/site.
PYTHON=python3
[ -x .venv/bin/python ] && PYTHON=.venv/bin/python
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
if [ "$PYTHON" = python3 ] && [ -d .whl ]; then
    if [ ! -d /tmp/site ]; then
        python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
            --target /tmp/site.tmp .whl/*.whl && mv /tmp/site.tmp /tmp/site || return 1
    fi
    PYTHONPATH=/tmp/site:$PYTHONPATH
fi
if [ -z "$TRIAL" ] && ! command -v nvidia-smi >/dev/null; then
    echo "there is no GPU here; try benchmarks/gpu/run_all.sh --trial"
    return 1
fi
"$PYTHON" benchmarks/gpu/check_wheels.py || return 1
# Drawing processes hand pictures over in shared memory, each tensor by a file of its own.
ulimit -n 65536 2>/dev/null
if [ "$(df --output=avail -k /dev/shm | tail -1)" -lt 2000000 ]; then
    mount -o remount,size=8G /dev/shm || echo "/dev/shm is small; drawing may fail"
fi
