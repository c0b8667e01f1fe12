"""The protocols as commands: `dspt-atlas run NAME --help`; the scripts are thin over them."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import register_standard
from dspt_atlas.commands import Parser, guarded
from dspt_atlas.config.benchmarks import EMBEDDED
from dspt_atlas.config.build import check_choice
from dspt_atlas.config.effect import check_shared, say
from dspt_atlas.config.ranges import whole_number
from dspt_atlas.datasets.noise import check_noise
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.pool import execute
from dspt_atlas.paths import expand_home, write_atomically
from dspt_atlas.plan.jobs import (
    SWAP_TYPES,
    Planner,
    Settings,
    dataset_path,
    default_targets,
    named_root,
    root_argument,
)
from dspt_atlas.report.table import report
from dspt_atlas.trainers.soft_labels import KINDS

DESCRIPTIONS = {
    "noisy": "Train with wrong training labels, test on the clean test set.",
    "fewshot": "Train with few images a class, test on the same classes.",
    "zeroshot": "Test zero-shot CLIP: hand-written prompts, no training.",
    "base2new": "Train on the first half of the classes, test on them and on the other half.",
    "crossdataset": "Train on a source, test on other data sets without further training.",
    "domain_generalisation": "Train on a source, test on other versions of it without further training.",
}
EXAMPLES = {"noisy": "noisy emoji sym 0.5 --trainer CoOp,CoOpDSPT --seeds 1,2,3"}
NOISE_TYPES = ("none", "sym", "asym", *SWAP_TYPES)
ALL_SHOTS = "1,2,4,8,16"
LOSSES = "ZeroshotCLIP,CoOp,CoOpGCE,CoOpMAE,CoOpDSPT"
LEARNERS = "CoOp,CoOpATLaS,CoCoOp,CoCoOpATLaS,MaPLe,MaPLeATLaS"
TRANSFERRED = "CoOp,CoOpDSPT,CoOpATLaS,MaPLeATLaS"
TITLE = "<!-- written by reproduce.sh of dspt-atlas -->"  # a file that begins otherwise is not overwritten
REPRODUCE = {
    "embedded": (
        ("noisy", "emoji", "none", "--trainer", LOSSES),
        ("noisy", "emoji", "sym", "0.5,0.75", "--trainer", LOSSES),
        ("noisy", "emoji", "asym", "0.5", "--trainer", LOSSES),
        ("fewshot", "emoji", "--trainer", "ZeroshotCLIP,CoOp,CoOpDSPT,CoOpATLaS"),
        ("base2new", "emoji", "--trainer", LEARNERS),
        *(("base2new", "emoji", "--trainer", "CoOpATLaS", "--soft-labels", kind) for kind in ("csl", "isl")),
        ("crossdataset", "emoji", "--trainer", TRANSFERRED),
        ("domain_generalisation", "emoji", "--trainer", TRANSFERRED),
    )
}


def build_parser(protocol: str = "noisy") -> Parser:
    """Return the parser of a protocol's command."""
    parser = Parser(
        "run",
        example=EXAMPLES.get(protocol, f"{protocol} emoji --seeds 1"),
        more=f"{DESCRIPTIONS[protocol]} Several data sets, types, rates, trainers, shots or seeds are separated by commas.",
        advice="the same command goes on where it stopped.",
        pairs=True,
    )
    parser.add_argument("protocol", choices=[protocol], help="what is to be done")
    if protocol == "noisy":
        parser.add_argument("dataset", metavar="DATASET", help="name of a file in configs/datasets, or a yaml file")
        parser.add_argument("type", metavar="TYPE", help=f"noise: {', '.join(NOISE_TYPES)}")
        parser.add_argument("rate", metavar="RATE", nargs="?", help="fraction of wrong labels, from 0 to below 1")
    else:
        is_transfer = protocol in ("crossdataset", "domain_generalisation")
        names = ("--dataset", "--source") if is_transfer else ("--dataset",)
        parser.add_argument("position", metavar="DATASET", nargs="?", help="the same as --dataset")
        parser.add_argument(*names, help="data set: name of a file in configs/datasets, or a yaml file")
        if is_transfer:
            parser.add_argument("--targets", help="data sets to test on (default: the protocol's)")
    parser.add_argument(
        "--trainer",
        default=os.environ.get("PROTOCOL_TRAINER", "ZeroshotCLIP"),
        help="trainers, such as CoOp,CoOpDSPT (default: %(default)s)",
    )
    parser.add_argument(
        "--shots", default=ALL_SHOTS if protocol == "fewshot" else "16", help="images a class (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", nargs="+", default=[os.environ.get("SEEDS", "1,2,3")], help="default: $SEEDS, else 1,2,3"
    )
    parser.add_argument(
        "--config", default="", help="name in configs/trainers, or a yaml file (default: the protocol's own)"
    )
    parser.add_argument(
        "--root", default="", help="folder of the data sets (default: DATASET.ROOT of a yaml, else $DATA, else data)"
    )
    parser.add_argument("--output", default=os.environ.get("OUTPUT", "output"), help="default: $OUTPUT, else output")
    parser.add_argument(
        "--soft-labels", default="", choices=["", *KINDS], help="TRAINER.ATLAS.SOFT_LABELS of ATLaS trainers"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument(
        "--workers", type=int, default=0, help="runs at once (default: one a core, or one where there is a GPU)"
    )
    parser.add_argument("--verbose", action="store_true", help="show what the runs print")
    return parser


def run_protocol(protocol: str, argv: list[str]) -> int:
    """Do a protocol, print its table and return the exit status."""
    options = build_parser(protocol).parse_args([protocol, *argv])
    settings = Settings(
        root=options.root,
        output=expand_home(options.output),
        seeds=tuple(_numbers(",".join(options.seeds), "--seeds", 0)),
        config=options.config,
        soft_labels=options.soft_labels,
        pairs=options.pairs,
        may_fall_back=not options.dry_run,
    )
    jobs = plan(protocol, options, settings)
    if options.dry_run:
        print(*(job.command() for job in jobs), sep="\n")
        return 0
    status = execute(jobs, options.verbose, options.workers)
    if folders := _table_folders(protocol, settings.output, _datasets(options)):
        print_report(folders, settings.seeds)
    return status


def _table_folders(protocol, output, datasets):
    """Return the folders whose runs belong into a protocol's table."""
    parents = {
        "noisy": [output / "noisy"],
        "base2new": [output / "base2new" / part for part in ("train_base", "test_new")],
        "transfer": [output],
    }
    names = [Path(dataset).stem for dataset in datasets]
    folders = [parent / name for parent in parents.get(planner_of(protocol), [output / "fewshot"]) for name in names]
    if planner_of(protocol) == "transfer":
        folders.append(output / "evaluation")
    return [folder for folder in folders if folder.is_dir()]


def print_report(folders: list[Path], seeds: tuple[int, ...]) -> str:
    """Print the tables of folders and what is missing in them; return the text."""
    tables, problems = report(folders, seeds)
    text = "\n".join([tables, *(f"Not counted: {problem}" for problem in problems)])
    print(f"\n{text}")
    return text


def plan(protocol: str, options, settings: Settings) -> list:
    """Return a protocol's jobs, all arguments checked; raises UserError."""
    register_standard()
    trainers = _names(options.trainer)
    for trainer in trainers:
        check_choice("trainer", trainer, TRAINER_REGISTRY.registered_names(), "--trainer")
    datasets = _datasets(options)
    all_shots = list(_numbers(options.shots, "--shots", 1))
    if len(settings.pairs) % 2:
        raise UserError(f"Expected KEY VALUE pairs after --, got an odd number: {' '.join(settings.pairs)}.")
    check_shared(shared_keys(settings.pairs, settings.soft_labels), trainers)
    check_datasets(datasets, settings)
    jobs = []
    for dataset, trainer, shots in itertools.product(datasets, trainers, all_shots):
        jobs += protocol_jobs(Planner(settings, planner_of(protocol), trainer), protocol, options, dataset, shots)
    return jobs


def shared_keys(pairs: tuple[str, ...], soft_labels: str) -> list[str]:
    """Return the keys that pairs and --soft-labels set in the runs of several trainers."""
    return [*pairs[::2], *(["TRAINER.ATLAS.SOFT_LABELS"] if soft_labels else [])]


def check_datasets(names: list[str], settings: Settings) -> None:
    """Raise UserError where a data set has no yaml, or there is no folder for those that are not embedded."""
    for name in names:
        dataset_path(name)
        if name in EMBEDDED:
            continue
        root = named_root(name, settings.config, settings.pairs) if not settings.root else settings.root
        root = root or root_argument(name, settings.config, settings)
        if not expand_home(root).is_dir():
            raise UserError(f"Expected the folder of the data sets at {root}, which is none: set --root or DATA.")
    if settings.root and {*names} <= {*EMBEDDED}:
        say(f"--root has no effect with {', '.join(names)}, whose images come with the package.")


def _datasets(options):
    datasets = _names(options.dataset or getattr(options, "position", None) or "")
    if not datasets:
        raise UserError("No data set is given: name one by --dataset, such as --dataset emoji.")
    return datasets


def planner_of(protocol: str) -> str:
    """Return the method of Planner that plans a protocol."""
    return "transfer" if protocol in ("crossdataset", "domain_generalisation") else protocol


def protocol_jobs(planner: Planner, protocol: str, options, dataset: str, shots: int) -> Iterator[Job]:
    """Yield the jobs of one data set and number of shots; `options` has type and rate (noisy) or targets (transfer)."""
    if protocol == "noisy":
        for noise_type, rate in noise_settings(options.type, options.rate):
            yield from planner.noisy(dataset, shots, noise_type, rate)
    elif planner_of(protocol) == "transfer":
        targets = tuple(_names(options.targets)) if options.targets else default_targets(protocol, dataset)
        yield from planner.transfer(dataset, shots, targets)
    else:
        yield from {"fewshot": planner.fewshot, "zeroshot": planner.fewshot, "base2new": planner.base2new}[protocol](
            dataset, shots
        )


def noise_settings(types: str, rates: str | None) -> Iterator[tuple[str, float]]:
    """Yield the (type, rate) pairs that are asked for; none has no rate."""
    for noise_type in _names(types):
        if noise_type not in NOISE_TYPES:
            raise UserError(f'Expected a noise type out of {", ".join(NOISE_TYPES)}, got "{noise_type}".')
        if noise_type == "none":
            yield noise_type, 0.0
            continue
        if not rates:
            raise UserError(f"The noise type {noise_type} needs a rate from 0 to below 1, such as 0.5.")
        for text in _names(rates):
            try:
                rate = float(text)
            except ValueError:
                raise UserError(f'Expected a noise rate from 0 to below 1, such as 0.5, got "{text}".') from None
            check_noise("swap" if noise_type in SWAP_TYPES else "relabel", noise_type, rate)
            yield noise_type, rate


def _names(text):
    return text.replace(",", " ").split()


def _numbers(text, option, least):
    for part in _names(text):
        number = whole_number(part)
        if number is None or number < least:
            raise UserError(f'Expected whole numbers from {least} on for {option}, got "{part}".')
        yield number


def reproduce(argv: list[str]) -> int:
    """Do every protocol of a benchmark and write the tables to OUTPUT/tables.md; return the exit status."""
    if not argv or argv[0] not in REPRODUCE:
        raise UserError(f"Expected a benchmark to reproduce, one of {', '.join(REPRODUCE)}, got {argv[:1] or 'none'}.")
    output = expand_home(build_parser("fewshot").parse_args(["fewshot", "emoji", *argv[1:]]).output)
    tables = output / "tables.md"
    if tables.exists() and not tables.read_bytes().startswith(TITLE.encode()):
        raise UserError(
            f"{tables} would be overwritten, and no reproduction wrote it: move it away, or choose another --output."
        )
    statuses = [run_protocol(protocol, [*arguments, *argv[1:]]) for protocol, *arguments in REPRODUCE[argv[0]]]
    if "--dry-run" not in argv:
        write_atomically(tables, f"{TITLE}\n\n{print_report([output], ())}\n")
        print(f"Tables: {tables}")
    return next((status for status in statuses if status), 0)


def main(argv: list[str] | None = None) -> int:
    """Run the command of a protocol; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    commands = (*DESCRIPTIONS, "reproduce")
    if argv[:1] in (["-h"], ["--help"]):
        print(f"usage: dspt-atlas run {{{','.join(commands)}}} ...\n\nexample:\n  dspt-atlas run {EXAMPLES['noisy']}")
        return 0
    if not argv or argv[0] not in commands:
        print(
            f"dspt-atlas run: Expected a protocol, one of {', '.join(commands)}, got {argv[0] if argv else 'none'}.",
            file=sys.stderr,
        )
        return 2

    def command():
        return reproduce(argv[1:]) if argv[0] == "reproduce" else run_protocol(argv[0], argv[1:])

    return guarded(command, f"dspt-atlas run {argv[0]}", "the same command goes on where it stopped.")
