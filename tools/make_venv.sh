#!/bin/sh
# Make .venv with the package and everything it needs, from a Python 3.11 or 3.12 found on this
# machine. PYTHON=... names one. The stamp .venv/.installed is written last, so an interrupted
# installation is never taken for a finished one.
set -eu
cd "$(dirname "$0")/.."
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'
whole='import ensurepip, venv'  # Debian and Ubuntu package these apart

# A name on the PATH may be a shim that fails when called, so every candidate is really run.
find_python() {
    no_venv=
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$fits" 2>/dev/null || {
            echo "PYTHON=$PYTHON is not a working Python 3.11 or 3.12." >&2
            return 1
        }
        "$PYTHON" -c "$whole" 2>/dev/null && { echo "$PYTHON"; return 0; }
        no_venv=$PYTHON
    else
        for name in python3.12 python3.11 python3 python; do
            old_ifs=$IFS
            IFS=:
            for folder in $PATH; do
                candidate=$folder/$name
                [ -x "$candidate" ] || continue
                "$candidate" -c "$fits" 2>/dev/null || continue
                "$candidate" -c "$whole" 2>/dev/null && { echo "$candidate"; return 0; }
                no_venv=$candidate
            done
            IFS=$old_ifs
        done
    fi
    if [ -n "$no_venv" ]; then
        echo "$no_venv fits, but lacks the venv module; on Debian or Ubuntu install it with:" >&2
        echo "    apt install $("$no_venv" -c \
            'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2
    else
        echo "No Python 3.11 or 3.12 on the PATH. Install one (python.org, your package manager," >&2
        echo "pyenv or conda), or name it: make PYTHON=/path/to/python3.12 run" >&2
    fi
    return 1
}

python=$(find_python) || exit 1
if [ -f .venv/.installed ]; then
    rm -f .venv/.installed # whole, only outdated: bring it up to date
else
    "$python" -m venv --clear .venv
fi
echo "Installing into .venv with $(.venv/bin/python --version). The first time this fetches"
echo "several GB (torch above all) and takes minutes."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
touch .venv/.installed
