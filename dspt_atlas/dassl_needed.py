"""Imports dassl, or says where to get one: an ImportError, and for a command of this project exit status 2."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = (
    "dspt_atlas needs a package `dassl`, and there is none: install upstream's from "
    "https://github.com/KaiyangZhou/Dassl.pytorch, or ours by `pip install ./engine` in the folder of this project."
)


def _command():
    """Return the name of the command of this project that is being started, or None."""
    options = sys.orig_argv[1:]
    if "-m" in options and (module := options[options.index("-m") + 1 :]) and module[0].startswith("dspt_atlas"):
        return module[0]
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    is_ours = path == ROOT / "train.py" or any(ROOT / name in path.parents for name in ("scripts", "benchmarks"))
    return path.name if is_ours else None


try:
    import dassl  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "dassl":
        raise
    if name := _command():
        print(f"{name}: {SENTENCE}", file=sys.stderr)
        raise SystemExit(2) from None
    raise ImportError(SENTENCE, name="dassl") from None
