"""Copy configurations and scripts into a fork of the CoOp family, and remove them again: `dspt-atlas adopt`."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import json
import sys
from pathlib import Path

import yaml
from yacs.config import CfgNode

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.paths import expand_home, write_atomically

HERE = Path(__file__).resolve().parents[1]
MANIFEST = ".dspt_atlas_adopted.json"
SCRIPTS = "scripts/dspt_atlas"
PATCH = f"{SCRIPTS}/train.patch"


def planned_files(fork: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the files for a fork as {path relative to it: text}, and the adaptations in them as {path: sentences}.

    Raises UserError if the fork's keys do not leave a place for ours.
    """
    from dspt_atlas.datasets.embedded import BACKBONES  # it loads torch, as those below

    files, adapted, defaults = {}, {}, fork_defaults(fork)
    for path in sorted((HERE / "configs" / "trainers").glob("*/*.yaml")):
        config = read_yaml(path)
        if config["MODEL"]["BACKBONE"]["NAME"] not in BACKBONES:  # names that only our train.py knows
            name = f"configs/trainers/{path.parent.name}/{path.name}"
            files[name], adapted[name] = _trainer_config(path, config, defaults)
    for path in sorted((HERE / "tools" / "fork").glob("*.sh")):
        files[f"{SCRIPTS}/{path.name}"] = path.read_text(encoding="utf-8")
    if diff := train_diff(fork):
        files[PATCH] = diff
    return files, adapted


def fork_defaults(fork: Path) -> CfgNode:
    """Return the configuration of a fork before any yaml: Dassl's keys, those of the fork's extend_cfg, and ours.

    extend_cfg is read, not run: values that are not literals are unknown and do not count.
    """
    from dassl.config import get_cfg_default

    from dspt_atlas.config.defaults import add_keys

    cfg = get_cfg_default()
    function = _extend_cfg(fork, fork / "train.py")
    for node in [] if function is None else ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            root, *parents, key = ast.unparse(node.targets[0]).split(".")
            place = cfg if root == function.args.args[0].arg else None
            for parent in parents:
                place = place.get(parent) if isinstance(place, CfgNode) else None
            with contextlib.suppress(ValueError, TypeError, AssertionError):
                value = _literal(node.value)
                if isinstance(place, CfgNode):
                    place[key] = value
    add_keys(cfg)
    return cfg


def _extend_cfg(fork, path):
    """Return the syntax tree of a fork's extend_cfg, in train.py or a file of the fork that it imports, or None."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "extend_cfg" and node.args.args:
            return node
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == "extend_cfg" for alias in node.names):
            return _extend_cfg(fork, fork / f"{node.module.replace('.', '/')}.py")
    return None


def _literal(node):
    """Return the value of a literal, or the group of keys that a call such as CN() makes; raises ValueError."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("CN", "CfgNode"):
        return CfgNode(*map(ast.literal_eval, node.args))
    return ast.literal_eval(node)


def _trainer_config(path, config, defaults):
    """Return a trainer's yaml that a fork's train.py can merge, and what was adapted for that.

    `_BASE_` and the values that follow the backbone are written out.
    """
    from dspt_atlas.trainers.clip.model import INPUT_SIZES
    from dspt_atlas.trainers.clip.sources import Preprocessing

    size = INPUT_SIZES.get(config["MODEL"]["BACKBONE"]["NAME"], 224)  # `clip` may be a fork's with fewer names
    values = {"SIZE": [size, size], **Preprocessing().pixels()}
    config["INPUT"] = {**values, **config.get("INPUT", {})}
    config, adapted = _merged(config, defaults)
    title = path.read_text(encoding="utf-8").splitlines()[0]
    origin = f"From dspt-atlas, configs/trainers/{path.parent.name}/{path.name}."
    return "\n".join([title, *(f"# {line}" for line in (origin, *adapted)), _dump(config)]), adapted


def _merged(config, defaults):
    """Return the part of a yaml that merges with a fork's defaults, and a sentence on each key that was changed."""
    if _merges(config, defaults):
        return config, []
    from dspt_atlas.trainers.learners.prompts import CONTEXT_OF_FLAG

    kept, adapted = {}, []
    flags = {words: flag for flag, words in CONTEXT_OF_FLAG.items()}
    for key, value in flatten(config):
        fitting = value
        if not _merges(_nested(key, value), defaults):
            fitting = flags.get(str(value)) if key.endswith(".CTX_INIT") else None
            if fitting is None or not _merges(_nested(key, fitting), defaults):
                adapted.append(f"{key} {value!r} is left out: the fork has no such key, or a value of another type.")
                continue
            adapted.append(f"{key} is {fitting} in place of {value!r}: the fork has a boolean there.")
        *parents, last = key.split(".")
        node = kept
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = fitting
    return kept, adapted


def _nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merges(config, defaults):
    try:
        defaults.clone().merge_from_other_cfg(CfgNode(config))
    except (KeyError, ValueError, AssertionError):
        return False
    return True


def _dump(config):
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def train_diff(fork: Path) -> str:
    """Return the unified diff that adds our two lines to a fork's train.py; "" if both are there.

    Raises UserError if there is no place for them.
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
    """Return (number of the line before it, line) for each line that a train.py lacks."""
    by_hand = "add the lines `import dspt_atlas` and `dspt_atlas.extend_cfg(cfg)` where its configuration is made."
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(
            f"{fork / 'train.py'} is not Python {sys.version_info[0]} (line {error.lineno}); {by_hand}"
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
    """Return the statement after which the configuration is complete, and the configuration's name, or None."""
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


def adopt(fork: Path, dry_run: bool = False) -> None:
    """Write the files that a fork lacks and a manifest of them, overwrite nothing, print the diff for its train.py."""
    manifest = _read_manifest(fork) or {"files": {}, "folders": []}
    files, adapted = planned_files(fork)
    new = {name: text for name, text in files.items() if not (fork / name).exists() and not (fork / name).is_symlink()}
    for name in files:
        kept = "kept, adopted before" if name in manifest["files"] else "kept, the fork's own"
        print(f"{'new' if name in new else kept}: {name}")
        for sentence in adapted.get(name, []) if name in new else []:
            print(f"  {sentence}")
    if new and not dry_run:
        folders = {str(parent) for name in new for parent in Path(name).parents if not (fork / parent).exists()}
        manifest["files"].update((name, _digest(text.encode())) for name, text in new.items())
        manifest["folders"] = sorted({*manifest["folders"], *folders})
        # First, so that an interrupted adoption can be undone too.
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
    """Remove the files that `adopt` wrote and nobody changed, and then the empty folders that it made.

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
            print(f"train.py is yours: remove line {number}: {line.strip()}")


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _read_manifest(fork):
    """Return the manifest of a fork, or None; raises UserError if it is damaged or leads out of the fork."""
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
        raise UserError(f"{path} is damaged: remove it and the adopted files (git status shows them).")
    return manifest


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas adopt`."""
    parser = Parser(
        "adopt",
        example="../CoOp --dry-run",
        more="It shows the two lines that the fork's train.py needs.",
        advice="the same command continues, and --undo removes the copied files.",
    )
    parser.add_argument(
        "fork", metavar="FORK", help="folder of the fork, with its train.py; no file there is overwritten"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
    parser.add_argument("--undo", action="store_true", help="remove the copied files, except files that were changed")
    return parser


def change_fork(options) -> None:
    """Adopt or undo; raises UserError for a folder that is not a fork's."""
    fork = expand_home(options.fork)
    if not (fork / "train.py").is_file() or fork.resolve() == HERE.parent:
        raise UserError(f"Expected the folder of a fork, with its train.py, but {fork} is not one.")
    if options.undo:
        undo(fork, options.dry_run)
    else:
        adopt(fork, options.dry_run)


main = main_of(build_parser, change_fork)
