#!/usr/bin/env bash
# What one GPU says of this project, in two parts of at most six minutes each.
#
#   tests/benchmarks/gpu_check.sh one       # right on CUDA, and how fast: needs torch and few others
#   tests/benchmarks/gpu_check.sh two       # encoders and all lessons on the GPU: needs the wheels
#   tests/benchmarks/gpu_check.sh wheels    # beforehand, with a network: fetch what it will lack
#
# A table comes last; it and everything else (the numbers as JSON, the logs, notebooks that failed)
# is written into $OUT, a handful of files a part. The status is 1 if a check failed.
#
#   OUT=runs/gpu_check    where to write
#   WHEELS=runs/wheels    the wheels; `wheels` fills its folders one and two, each with what that
#                         part is to bring along, so that tree and wheels stay under 64 MiB a trip
#   SITE=runs/gpu_site    where wheels are unpacked, and stay for the next part
#   PYTHON=.venv/bin/python, or else python3
#
# More options go to gpu_check.py: --device cpu --small is the dry run, --seconds N the budget.
set -euo pipefail
cd "$(dirname "$0")/../.."
part=${1:-}
case $part in one | two | wheels) shift ;; *) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2 ;; esac

export OUT=${OUT:-runs/gpu_check} WHEELS=${WHEELS:-runs/wheels} SITE=${SITE:-runs/gpu_site}
mkdir -p "$OUT" "$SITE"
OUT=$(cd "$OUT" && pwd) SITE=$(cd "$SITE" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=.venv/bin/python
    "$PYTHON" -c '' 2>/dev/null || PYTHON=python3
fi
export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"
# nbconvert finds its templates by this, wherever its wheel was unpacked
export JUPYTER_PATH="$SITE/share/jupyter${JUPYTER_PATH:+:$JUPYTER_PATH}"
exec "$PYTHON" tests/benchmarks/gpu_check.py "$part" "$@"
