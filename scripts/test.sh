#!/usr/bin/env bash
# Set everything up and run the tests: bash scripts/test.sh [--no-venv] [pytest's options]
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
setup "$@" || exit $?
cd "$ROOT" || exit 1
exec "$PYTHON" -m pytest ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
