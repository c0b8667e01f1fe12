"""Train or evaluate one method on one data set: `python train.py --help`."""

import sys

try:
    from dspt_atlas.cli import leave, main
except ModuleNotFoundError as error:
    advice = "run `bash scripts/demo.sh` for an environment, or `pip install -e engine -e .` in yours."
    print(f"train.py: {error}; {advice}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    leave(main(["train", *sys.argv[1:]]))
