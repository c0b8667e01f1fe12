"""The command that does a plan: `run PLAN [DATASET]`; each script of a protocol is one line that calls it."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from dspt_atlas.commands import Parser, command_line
from dspt_atlas.config.reading import is_yaml
from dspt_atlas.errors import UserError
from dspt_atlas.keys.ranges import whole_number
from dspt_atlas.launch import Options, add_launcher_options, make_launcher
from dspt_atlas.paths import expand_home, write_atomically
from dspt_atlas.plan.planner import NOISE_TYPES, Plan, plan_names, read_plan
from dspt_atlas.report.figures import draw_figures

TITLE = "<!-- written by dspt-atlas -->"
TITLES = (TITLE, "<!-- written by reproduce.sh of dspt-atlas -->")  # a file that begins otherwise is not overwritten
AXES = {"trainer": "trainers", "shots": "shots", "seeds": "seeds", "config": "configs", "soft_labels": "soft_labels"}


def build_parser(plan: Plan | None = None, name: str = "run", needs_noise: bool = False) -> Parser:
    """Return the parser of a command that does a plan; needs_noise: DATASET and TYPE are required."""
    plan = plan or read_plan("noisy")
    content, example = plan.content, plan.content.get("example", f"{plan.path.stem} emoji --seeds 1")
    parser = Parser(
        name,
        example=example if name == "run" else "--seeds 1",
        more=f"{content.get('description', '')} Several data sets, types, rates, trainers, shots or seeds are "
        "separated by commas.",
        advice="the same command continues where it stopped.",
        pairs=True,
    )
    parser.set_defaults(plan=plan)

    def add(name, text, default=None, **more):
        shown = default or content.get(AXES.get(name, name)) or "the plan's own"
        shown = ",".join(map(str, shown)) if isinstance(shown, list) else shown
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=f"{text} (default: {shown})", **more)

    if name == "run":
        parser.add_argument("name", metavar="PLAN", help="name of a file in configs/plans, or a yaml file")
    types, number = ", ".join(NOISE_TYPES), None if needs_noise else "?"
    parser.add_argument("dataset", metavar="DATASET", nargs=number, help="name in configs/datasets, or a yaml file")
    if plan.shape.has_noise:
        parser.add_argument("type", metavar="TYPE", nargs=number, help=f"noise: {types}")
        parser.add_argument("rates", metavar="RATE", nargs="?", help="fraction of wrong labels, from 0 to below 1")
        parser.add_argument("--noise", metavar="TYPE", help="the same as TYPE")
        parser.add_argument("--rate", help="the same as RATE")
    parser.add_argument("--dataset", "--source", dest="datasets", metavar="DATASET", help="the same as DATASET")
    if plan.shape.has_targets:
        add("targets", "data sets to test on")
    add("trainer", "trainers, such as CoOp,CoOpDSPT", os.environ.get("PROTOCOL_TRAINER"))
    add("shots", "images per class", "16" if plan.is_protocol and "shots" not in content else None)
    add("seeds", "$SEEDS, if the plan has no seeds", nargs="+")
    add("config", "name in configs/trainers, or a yaml file")
    parser.add_argument(
        "--root", default="", help="folder of the data sets (default: DATASET.ROOT of a yaml, or $DATA, or data)"
    )
    parser.add_argument("--clip-dir", help="folder of OpenAI's weights (the same as MODEL.CLIP_DIR)")
    output = os.environ.get("OUTPUT") or content.get("output", "output")
    parser.add_output("default: $OUTPUT, or %(default)s", default=output)
    add("soft_labels", "TRAINER.ATLAS.SOFT_LABELS of ATLaS trainers")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    add_launcher_options(parser, "", "default: processes of this command that do many runs each")
    parser.add_argument("--verbose", action="store_true", help="show the output of the runs")
    return parser


def run_plan(options) -> int:
    """Do a plan, print its tables and return the exit status."""
    from dspt_atlas.launch.pool import execute  # it loads torch

    plan, output, given = options.plan, options.output, given_axes(options.plan, options)
    if options.clip_dir:
        options.pairs = (*options.pairs, "MODEL.CLIP_DIR", str(expand_home(options.clip_dir).resolve()))
    settings = Options.of(options, output / "sweeps" / plan.path.stem)
    if options.launcher:  # the runs may start in another folder or on another machine
        output, options.root = output.resolve(), str(expand_home(options.root).resolve()) if options.root else ""
    tables = output / plan.content["tables"] if "tables" in plan.content else None
    if tables and tables.exists() and not tables.read_bytes().startswith(tuple(map(str.encode, TITLES))):
        raise UserError(
            f"{tables} would be overwritten, but no reproduction wrote it: move it away, or choose another --output."
        )
    if reason := plan.why_skipped(options.root):
        print(f"NOTE: {reason}", file=sys.stderr)
        return 0
    jobs = plan.jobs(options.root, output, options.pairs, given, may_fall_back=not options.dry_run)
    if options.dry_run:
        print(*(job.command() for job in jobs), sep="\n")
        return 0
    launcher = make_launcher(options.launcher, settings) if options.launcher else None
    done: list[Path] = []
    status = execute(jobs, options.verbose, options.workers, on_done=done.append, launcher=launcher)
    seeds = tuple(dict.fromkeys(int(job.option("--seed")) for job in jobs))
    if tables:
        write_atomically(tables, f"{TITLE}\n\n{print_report([output], ())}\n")
        print(f"Tables: {tables}")
    elif done and (folders := plan.table_folders(jobs, output)):
        print_report(folders, seeds)
    if undone := len(jobs) - len(done):  # the folder of a refused run holds another one's result
        note = f"NOTE: {undone} of {len(jobs)} runs were not done; what a table has of their folders is of other runs."
        print(note, file=sys.stderr)
    if done and "picture" in plan.content:
        _draw(done, plan.content["picture"], output)
    return status


def given_axes(plan: Plan, options) -> dict:
    """Return the plan's axes that the command line gives; raises UserError."""
    given: dict = {axis: _words(text) for name, axis in AXES.items() if (text := getattr(options, name))}
    seeds = options.seeds or ([] if "seeds" in plan.content else [os.environ.get("SEEDS") or "1,2,3"])
    if plan.is_protocol or options.seeds:
        given["seeds"] = _words(",".join(seeds))
    for name, least in (("shots", 1), ("seeds", 0)):
        if name in given:
            given[name] = [_number(word, f"--{name}", least) for word in given[name]]
    if datasets := _words(options.datasets or options.dataset or ""):
        given["datasets"] = datasets
    elif plan.is_protocol:
        raise UserError("No data set is given: give one by --dataset, such as --dataset emoji.")
    if plan.shape.has_noise:
        types, rates = options.noise or options.type, options.rate or options.rates
        if types:
            given["noise"] = list(_noise(types, rates))
        elif rates or (plan.is_protocol and "noise" not in plan.content):
            raise UserError(f"No noise is given: give a type, one of {', '.join(NOISE_TYPES)}, and a rate such as 0.5.")
    if plan.shape.has_targets and options.targets:
        given["targets"] = _words(options.targets)
    return given


def _noise(types, rates):
    from dspt_atlas.plan.step import noise_file, noise_of  # it loads torch

    kinds = _words(types)
    for kind in kinds:
        is_clean = kind == "none" and {*kinds} != {"none"}  # the rates are those of the other types
        for rate in [""] if is_clean or not rates else _words(rates):
            noise_of(text := f"{kind} {rate}".strip())
            found = noise_file(text)
            yield f"{found[0]} {_absolute(found[1])}" if found else text


def _words(text: str | list) -> list[str]:
    pieces = (text if isinstance(text, str) else ",".join(text)).split(",")
    # the path of a file may have blanks
    words = itertools.chain(*([piece] if os.path.isfile(expand_home(piece)) else piece.split() for piece in pieces))
    return [_absolute(word) if is_yaml(word) else word for word in words]


def _absolute(path: str) -> str:
    """Return a path of the command line, which is relative to the working folder and not to a plan."""
    return os.path.abspath(expand_home(path))


def _number(text, option, least):
    number = whole_number(text)
    if number is None or number < least:
        raise UserError(f'Expected whole numbers from {least} on for {option}, got "{text}".')
    return number


def print_report(folders: list[Path], seeds: tuple[int, ...]) -> str:
    """Print the tables of folders and their missing parts; return the text."""
    from dspt_atlas.report.table import report  # it loads pandas

    tables, problems = report(folders, seeds)
    text = "\n".join([tables, *(f"Not counted: {problem}" for problem in problems)])
    print(f"\n{text}")
    return text


def _draw(done, figure, output):
    """Draw a figure of the folders of finished runs."""
    paths = draw_figures(done, output, (figure,))
    print(f"\nPicture: {paths[0].resolve()} (also .svg, and the numbers as .csv)")


def main(argv: list[str] | None = None) -> int:
    """Do a plan; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    prog, names = command_line("run"), ", ".join(plan_names())
    if argv[:1] in (["-h"], ["--help"]):
        print(
            f"usage: {prog} PLAN [DATASET] ...\n\nPLAN: a yaml file, or one of {names}; {prog} PLAN --help says more."
        )
        print(f"\nexample:\n  {prog} {build_parser().example}")
        return 0

    try:
        if not argv or argv[0].startswith("-"):
            raise UserError(f"Expected a plan first, a yaml file or one of {names}, got {argv[0] if argv else 'none'}.")
        plan = read_plan(argv[0])
    except UserError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    is_needed = plan.is_protocol and plan.shape.has_noise and "noise" not in plan.content
    needs_noise = is_needed and not {"--noise", "--dataset", "--source"} & {word.partition("=")[0] for word in argv}
    return build_parser(plan, needs_noise=needs_noise).call(run_plan, argv)
