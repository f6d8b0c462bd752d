#!/usr/bin/env bash
# From a fresh clone to numbers on one GPU of 80 GB or more, in under 12 minutes and without a hub: see gpu.py, whose
# options it takes. PYTHON=NAME takes a Python that has all of the package's needs, and installs nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    make -C "$root" .venv/.installed
    PYTHON=$root/.venv/bin/python
fi
export PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" "$root/benchmarks/gpu.py" --spent "$SECONDS" "$@"
