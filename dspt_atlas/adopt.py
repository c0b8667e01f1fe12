"""Bring configurations and scripts into a fork of the CoOp family, and take them out again: scripts/adopt.sh."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import sys
from pathlib import Path

import yaml

from .cli import Parser, guarded
from .datasets.embedded import BACKBONES
from .datasets.noisy import PREFIX
from .errors import UserError
from .launch import read_yaml
from .paths import write_atomically
from .trainers.clip_model import CLIP_MEAN, CLIP_STD, INPUT_SIZES

MANIFEST = ".dspt_atlas_adopted.json"
SCRIPTS = "scripts/dspt_atlas"
PATCH = f"{SCRIPTS}/train.patch"


def planned_files(fork: Path, source: Path) -> dict[str, str]:
    """Return the files for a fork as {path relative to it: text}; `source` is the folder of this project."""
    files = {}
    for path in sorted((source / "configs" / "trainers").glob("*/*.yaml")):
        config = read_yaml(path)
        if config["MODEL"]["BACKBONE"]["NAME"] not in BACKBONES:  # names that only our train.py knows
            files[f"configs/trainers/{path.parent.name}/{path.name}"] = _trainer_config(path, config)
    for path in sorted((fork / "configs" / "datasets").glob("*.yaml")):
        config = read_yaml(path)
        name = (config.get("DATASET") or {}).get("NAME") or ""
        if name and not name.startswith(PREFIX):
            config["DATASET"]["NAME"] = PREFIX + name
            title = f"# {path.name} with the label noise of DATASET.NOISE."
            files[f"configs/datasets/noisy_{path.name}"] = f"{title}\n{_dump(config)}"
    for path in sorted((source / "scripts" / "fork").glob("*.sh")):
        files[f"{SCRIPTS}/{path.name}"] = path.read_text(encoding="utf-8")
    if diff := train_diff(fork):
        files[PATCH] = diff
    return files


def _trainer_config(path, config):
    """Return a trainer's yaml as a fork's train.py needs it: `_BASE_` and what follows the backbone written out."""
    size = INPUT_SIZES.get(
        config["MODEL"]["BACKBONE"]["NAME"], 224
    )  # not of `clip`, which may be a fork's with fewer names
    values = {"SIZE": [size, size], "PIXEL_MEAN": list(CLIP_MEAN), "PIXEL_STD": list(CLIP_STD)}
    config["INPUT"] = {**values, **config.get("INPUT", {})}
    title = path.read_text(encoding="utf-8").splitlines()[0]
    return f"{title}\n# From dspt-atlas, configs/trainers/{path.parent.name}/{path.name}.\n{_dump(config)}"


def _dump(config):
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def train_diff(fork: Path) -> str:
    """Return the unified diff that adds our two lines to a fork's train.py; "" if both are there.

    Raises UserError where no place for them is found.
    """
    with open(fork / "train.py", encoding="utf-8", newline="") as file:
        text = file.read()
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    changed = list(lines)
    for number, line in sorted(_insertions(fork, text), reverse=True):
        if number == len(lines) and not lines[-1].endswith("\n"):
            changed[-1] += end
        changed.insert(number, line + end)
    diff = difflib.unified_diff(lines, changed, "a/train.py", "b/train.py")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in diff)


def _insertions(fork, text):
    """Return (line number after which it goes, line) of what a train.py lacks."""
    by_hand = "add the lines `import dspt_atlas` and `dspt_atlas.extend_cfg(cfg)` where its configuration is made."
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(
            f"{fork / 'train.py'} is no Python {sys.version_info[0]} (line {error.lineno}); {by_hand}"
        ) from error
    found = []
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    if not any(alias.name == "dspt_atlas" for node in imports for alias in node.names):
        found.append((imports[-1].end_lineno if imports else 0, "import dspt_atlas"))
    if "dspt_atlas.extend_cfg" not in {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}:
        place = _config_statement(tree)
        if place is None:
            raise UserError(f"{fork / 'train.py'} calls neither extend_cfg nor get_cfg_default; {by_hand}")
        statement, config = place
        found.append((statement.end_lineno, f"{' ' * statement.col_offset}dspt_atlas.extend_cfg({config})"))
    return found


def _config_statement(tree):
    """Return the statement after which the configuration is complete, and the configuration's name; else None."""
    extended, made = [], []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Expr, ast.Assign)) or not isinstance(node.value, ast.Call):
            continue
        function = ast.unparse(node.value.func).split(".")[-1]
        if isinstance(node, ast.Expr) and function == "extend_cfg" and len(node.value.args) == 1:
            extended.append((node, ast.unparse(node.value.args[0])))
        elif isinstance(node, ast.Assign) and function == "get_cfg_default":
            made.append((node, ast.unparse(node.targets[0])))
    return (extended or made or [None])[0]


def adopt(fork: Path, source: Path, dry_run: bool = False) -> None:
    """Write the files that a fork lacks and a manifest of them, overwriting none, print the diff for its train.py."""
    manifest = _read_manifest(fork) or {"files": {}, "folders": []}
    files = planned_files(fork, source)
    new = {name: text for name, text in files.items() if not (fork / name).exists() and not (fork / name).is_symlink()}
    for name in files:
        kept = "kept, adopted before" if name in manifest["files"] else "kept, the fork's own"
        print(f"{'new' if name in new else kept}: {name}")
    if new and not dry_run:
        folders = {str(parent) for name in new for parent in Path(name).parents if not (fork / parent).exists()}
        manifest["files"].update((name, _digest(text.encode())) for name, text in new.items())
        manifest["folders"] = sorted({*manifest["folders"], *folders})
        # First, so that what an interruption leaves behind can be undone too.
        write_atomically(fork / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for name, text in new.items():
            write_atomically(fork / name, text)
    print(f"{len(new)} new files, {len(files) - len(new)} kept{' (nothing written: --dry-run)' if dry_run else ''}")
    if diff := files.get(PATCH):
        print(f"\nThe two lines that {fork / 'train.py'} needs (it is not changed):\n\n{diff}")
        print(f'Add them by hand, or: cd "{fork}" && patch -p1 < {PATCH}')
    else:
        print(f"{fork / 'train.py'} has the two lines already")


def undo(fork: Path, dry_run: bool = False) -> None:
    """Remove what `adopt` wrote and nobody changed, and the folders that it made and that are empty then.

    Raises UserError if nothing was adopted.
    """
    manifest = _read_manifest(fork)
    if manifest is None:
        raise UserError(f"There is nothing to undo: {fork} has no {MANIFEST}.")
    for name, digest in manifest["files"].items():
        path = fork / name
        if not path.is_file():
            continue
        unchanged = _digest(path.read_bytes()) == digest
        print(f"{'removed' if unchanged else 'kept, changed since'}: {name}")
        if unchanged and not dry_run:
            path.unlink()
    if dry_run:
        print("Nothing removed: --dry-run")
        return
    for folder in sorted(manifest["folders"], reverse=True):
        if (fork / folder).is_dir() and not any((fork / folder).iterdir()):
            (fork / folder).rmdir()
    (fork / MANIFEST).unlink()
    lines = (fork / "train.py").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if "dspt_atlas" in line:
            print(f"train.py is yours: take out line {number}: {line.strip()}")


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _read_manifest(fork):
    """Return the manifest of a fork, or None; raises UserError for one that is damaged or leads out of the fork."""
    path = fork / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = [*dict(manifest["files"]), *manifest["folders"]]
        is_sound = all((fork / name).resolve().is_relative_to(fork.resolve()) for name in names)
    except (ValueError, KeyError, TypeError):
        is_sound = False
    if not is_sound:
        raise UserError(f"{path} is damaged: remove it, and what was adopted (git status shows it).")
    return manifest


def main(argv: list[str] | None = None) -> int:
    """Run scripts/adopt.sh; return the exit status."""
    parser = Parser(
        prog="adopt.sh", description="Copy configurations and scripts into a fork of CoOp, MaPLe and so on."
    )
    parser.add_argument(
        "fork", metavar="FORK", help="folder of the fork, with its train.py; no file there is overwritten"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
    parser.add_argument("--undo", action="store_true", help="remove what was copied, except what was changed since")
    parser.add_argument("--source", required=True, help="folder of this project; adopt.sh names it")

    def command():
        options = parser.parse_args(argv)
        fork, source = Path(options.fork).expanduser(), Path(options.source)
        if not (fork / "train.py").is_file() or fork.resolve() == source.resolve():
            raise UserError(f"Expected the folder of a fork, with its train.py, but {fork} is none.")
        if options.undo:
            undo(fork, options.dry_run)
        else:
            adopt(fork, source, options.dry_run)

    return guarded(command, "adopt.sh", "the same command goes on, and --undo takes back what was done.")


if __name__ == "__main__":
    sys.exit(main())
