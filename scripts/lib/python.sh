# Sourced. PYTHON: $PYTHON, or the active environment's, or .venv's, or python3; `protocol NAME ...` runs a protocol.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [ -z "${PYTHON:-}" ]; then
    if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        PYTHON=python
    elif [ -x "$ROOT/.venv/bin/python" ]; then
        PYTHON="$ROOT/.venv/bin/python"
    else
        PYTHON=python3
    fi
fi

protocol() {
    if ! "$PYTHON" -c 'from importlib.metadata import version; version("dspt-atlas"); version("torch")' 2>/dev/null; then
        echo "$0: dspt-atlas is not installed for $PYTHON; run: bash \"$ROOT/scripts/demo.sh\", or give another by PYTHON" >&2
        exit 2
    fi
    exec "$PYTHON" -m dspt_atlas run "$@"
}
