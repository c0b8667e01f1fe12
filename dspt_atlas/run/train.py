"""The command line of one run: the options of the CoOp family's train.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dspt_atlas.commands import Parser, main_of

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_parser() -> Parser:
    """Return the parser of train.py: the options of the CoOp family."""
    parser = Parser(
        "train",
        example="--dataset-config-file configs/datasets/emoji.yaml --config-file configs/trainers/CoOp/emoji_rn.yaml "
        "--trainer CoOpDSPT --seed 1 --output-dir output/emoji DATASET.NOISE.TYPE sym DATASET.NOISE.RATE 0.5",
        more="A finished output folder is not changed; an unfinished run resumes. Later sources override earlier ones: "
        "defaults, data set yaml, trainer yaml, options, KEY VALUE pairs.",
        advice="start it again to resume after its last finished epoch: {command}",
        pairs=True,
    )
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--output-dir", "--output", help="folder of this run (default: ./output)")
    parser.add_argument("--resume", help="folder with the checkpoints to start from (default: the output folder)")
    parser.add_argument("--seed", type=int, help="seed, 0 included; -1: none")
    parser.add_argument("--source-domains", nargs="+", help="domains to train on")
    parser.add_argument("--target-domains", nargs="+", help="domains to test on")
    parser.add_argument("--transforms", nargs="+", help="training transforms")
    parser.add_argument("--config-file", help="trainer yaml, such as configs/trainers/CoOp/rn50_ep50.yaml")
    parser.add_argument("--dataset-config-file", help="data set yaml, such as configs/datasets/caltech101.yaml")
    parser.add_argument("--trainer", help="trainer, such as CoOpDSPT")
    parser.add_argument("--backbone", help="OpenAI's name of a CLIP, a file, open_clip:ARCH=FILE, hf:FOLDER, EmojiRN")
    parser.add_argument("--head", help="head of the family's other trainers; not used by ours")
    parser.add_argument("--clip-dir", help="folder of OpenAI's weights")
    parser.add_argument(
        "--skip-broken", action="store_true", default=None, help="leave out images that are missing or cannot be read"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate the model in --model-dir")
    parser.add_argument("--model-dir", default="", help="output folder of the training run to evaluate")
    parser.add_argument("--load-epoch", type=int, help="epoch to evaluate (default: the best, or the last)")
    parser.add_argument("--no-train", action="store_true", help="build everything and stop")
    return parser


def read_arguments(argv: list[str]) -> tuple[CfgNode, argparse.Namespace]:
    """Return the frozen configuration and the options that train.py's arguments describe; raises UserError."""
    options = build_parser().parse_args(argv)
    return _configuration(options), options


def _configuration(options):
    from dspt_atlas.config.build import build_cfg  # it loads torch, which --help needs not

    return build_cfg(vars(options), options.pairs)


def run_arguments(argv: list[str]) -> dict | None:
    """Do the run that train.py's arguments describe and return the content of its result.json."""
    return _run(build_parser().parse_args(argv))


def _run(options):
    from dspt_atlas.run.runs import run  # it loads torch, which --help needs not

    name = Path(options.config_file or "").stem
    return run(
        _configuration(options), options.eval_only, options.model_dir, options.load_epoch, options.no_train, name
    )


main = main_of(build_parser, _run)
