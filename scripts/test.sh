#!/usr/bin/env bash
# Set everything up and run the tests, a file at a time on each core: bash scripts/test.sh [--no-venv] [pytest's options]
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
setup "$@" || exit $?
cd "$ROOT" || exit 1
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
