#!/usr/bin/env bash
# Mutation check of the losses, the noise and the results (mutmut, settings in pyproject.toml), in a copy of the repository.
# bash scripts/test_mutants.sh [names such as 'dspt_atlas.trainers.losses*'] ; needs: pip install mutmut
source "$(dirname "${BASH_SOURCE[0]}")/lib/python.sh"
set -euo pipefail
COPY="$(mktemp -d)"
trap 'rm -rf "$COPY"' EXIT
cd "$ROOT"
# Mutants are found by their module's name: in the copy, folders lie where they are imported from, not links to them.
cp -RL dspt_atlas tests configs scripts pyproject.toml "$COPY"
cd "$COPY"
find . -name __pycache__ -prune -exec rm -rf {} +
export OMP_NUM_THREADS=1
"$PYTHON" -m mutmut run --max-children "${WORKERS:-2}" "$@"
"$PYTHON" -m mutmut results | { grep -v "not checked" || true; } | while read -r name status; do
    echo "$name $status"
    "$PYTHON" -m mutmut show "${name%:}" | tail -n +2
done
