#!/usr/bin/env bash
# The quick tests in fresh environments: one with the oldest supported versions, one in between, one with the newest.
# bash scripts/test_matrix.sh FOLDER [oldest|between|newest ...] [-- pytest's options]
# Several GB are downloaded; environments and logs stay in FOLDER. PYTHON310, PYTHON312, PYTHON313: the interpreters.
set -uo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VERSIONS=(
    "oldest ${PYTHON310:-python3.10} torch==2.2.2 torchvision==0.17.2 numpy==1.26.4"
    "between ${PYTHON312:-python3.12} torch==2.6.0 torchvision==0.21.0 numpy==2.*"
    "newest ${PYTHON313:-python3.13} torch==2.14.1 torchvision==0.29.1 numpy==2.*"
)

usage() {
    echo "Usage: bash $0 FOLDER [oldest|between|newest ...] [-- pytest's options]" >&2
    exit 2
}

install() { # FOLDER PYTHON PACKAGE ...
    local folder=$1 python=$2
    shift 2
    [ -e "$folder/installed" ] && return
    "$python" -m venv "$folder" &&
        # One call for all, so that nothing replaces the versions asked for.
        (cd "$ROOT" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
            "$@" -e ./engine -e '.[test]') &&
        touch "$folder/installed"
}

case "${1:-}" in "" | -*) usage ;; esac
mkdir -p "$1" && FOLDER="$(cd "$1" && pwd)" || exit 2
shift
WANTED=" "
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in oldest | between | newest) WANTED+="$1 " ;; *) usage ;; esac
    shift
done
[ $# -gt 0 ] && shift
status=0
summary=()
for line in "${VERSIONS[@]}"; do
    read -r name python packages <<< "$line"
    [ "$WANTED" = " " ] || [[ "$WANTED" == *" $name "* ]] || continue
    read -ra packages <<< "$packages"
    log="$FOLDER/$name.log"
    result="installation failed"
    if install "$FOLDER/$name" "$python" "${packages[@]}" > "$log" 2>&1; then
        (cd "$ROOT" && "$FOLDER/$name/bin/python" -m pytest -q -m "not slow" -p no:cacheprovider "$@") >> "$log" 2>&1 || status=1
        result="$(tail -n 1 "$log")"
    else
        status=1
    fi
    summary+=("$name ($python ${packages[*]}): $result; log: $log")
done
printf '%s\n' "${summary[@]}"
exit "$status"
