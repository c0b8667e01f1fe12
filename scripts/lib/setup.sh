# Sourced. `setup "$@"` makes an environment with everything installed and sets ROOT, PYTHON and the array ARGUMENTS:
# .venv in the repository, made by $PYTHON (default python3), or with --no-venv the environment of $PYTHON itself.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

setup() {
    local use_venv=yes argument
    PYTHON="${PYTHON:-python3}"
    ARGUMENTS=()
    for argument in "$@"; do
        if [ "$argument" = --no-venv ]; then use_venv=no; else ARGUMENTS+=("$argument"); fi
    done
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "Expected Python 3.10 or newer; give one by PYTHON, such as PYTHON=python3.11" >&2
        return 2
    fi
    if [ "$use_venv" = yes ]; then
        [ -x "$ROOT/.venv/bin/python" ] || "$PYTHON" -m venv "$ROOT/.venv" || return 1
        PYTHON="$ROOT/.venv/bin/python"
    fi
    install_packages
}

install_packages() {
    local stamp wanted
    stamp="$("$PYTHON" -c 'import sys; print(sys.prefix)')/.dspt-atlas-installed"
    wanted="$ROOT $("$PYTHON" -c 'import hashlib, sys
print(hashlib.sha256(b"".join(open(path, "rb").read() for path in sys.argv[1:])).hexdigest())' \
        "$ROOT/pyproject.toml" "$ROOT/setup.py" "$ROOT/engine/setup.py" "$ROOT/constraints.txt")"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    echo "Installing into $("$PYTHON" -c 'import sys; print(sys.prefix)') ..."
    local pip=("$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$ROOT/constraints.txt")
    "${pip[@]}" torch torchvision || return 1
    # From inside the folder: pip reads brackets in a path as extras.
    (cd "$ROOT" && "${pip[@]}" -e ./engine -e '.[test]') || return 1
    echo "$wanted" > "$stamp"
}
