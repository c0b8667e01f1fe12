#!/usr/bin/env bash
# Set everything up and show the main result on the embedded benchmark: a table and a picture.
# bash scripts/demo.sh [--no-venv] [--seeds 1 2 3] [--output DIR]
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
setup "$@" || exit $?
exec "$PYTHON" -m dspt_atlas demo ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
