#!/usr/bin/env bash
# Check a machine with a GPU within nine minutes: bash benchmarks/device.sh OUT [device.py's options]
# PYTHON: an environment with everything installed; without it one is made as by scripts/test.sh. On a machine without network
# whose python3 has torch, torchvision, matplotlib, scikit-learn and so on, WHEELS is a folder with the wheels that are
# missing there: yacs, rf-clip, ftfy, wcwidth (and tabulate, tqdm, filelock, regex, jinja2, tensorboard, setuptools from 77
# on where not there).
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ $# -eq 0 ]; then
    echo "Usage: bash benchmarks/device.sh OUT [--budget SECONDS] [--stage NAME] [--cpu]" >&2
    exit 2
fi
if [ -n "${WHEELS:-}" ]; then
    PYTHON="${PYTHON:-python3}"
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    offline=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --target "$site")
    "${offline[@]}" "$WHEELS"/*.whl
    mkdir "$site/source" # pip builds inside the folder that it installs from
    cp -r "$root"/{setup.py,pyproject.toml,README.md,LICENSE,dspt_atlas,trainers,datasets,configs,engine} "$site/source"
    PYTHONPATH="$site" "${offline[@]}" --no-build-isolation "$site/source" "$site/source/engine"
    export PYTHONPATH="$site"
elif ! "${PYTHON:-python3}" -c 'import dspt_atlas, dassl' 2>/dev/null; then
    source "$root/scripts/lib/setup.sh"
    setup
fi
"${PYTHON:-python3}" "$root/benchmarks/device.py" "$@" --used $SECONDS
