"""Train or evaluate one method on one data set: `python train.py --help`."""

import sys

from dspt_atlas.cli import leave, main

if __name__ == "__main__":
    leave(main(["train", *sys.argv[1:]]))
