#!/usr/bin/env bash
# Set everything up and run the tests, one file at a time per core:
# bash scripts/test.sh [--no-venv] [--quick] [pytest's options]
# --quick: for every save, no test that trains, loads a CLIP, draws or starts a process
source "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
setup "$@" || exit $?
cd "$ROOT" || exit 1
# One thread per process, because there is a process per core; and pytest keeps its compiled tests for the next time.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
unset PYTHONDONTWRITEBYTECODE
for number in "${!ARGUMENTS[@]}"; do
    [ "${ARGUMENTS[$number]}" != --quick ] || ARGUMENTS[number]="-mnot slow and not runs"
done
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
