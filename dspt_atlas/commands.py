"""The sub-commands of `dspt-atlas`, and how each of them handles arguments, mistakes and signals."""

from __future__ import annotations

import argparse
import io
import os
import re
import select
import shlex
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dspt_atlas.errors import is_failure, is_mistake, one_line, status_of
from dspt_atlas.paths import check_output, expand_home
from dspt_atlas.signals import Interrupted, signals_raised


class Command(NamedTuple):
    """A sub-command: its module, which has `build_parser()` and `main(argv)`, and a line that says what it does."""

    module: str
    line: str


COMMANDS = {
    "train": Command("run.train", "Train a method on a data set and evaluate it, or evaluate a trained model."),
    "run": Command("tools.run_plan", "Do a plan: noisy labels, few-shot, base-to-new, transfer, a table, your own."),
    "sweep": Command("tools.sweep", "Do all runs of a sweep on this machine, on Ray or on Slurm."),
    "table": Command("report.table", "Print tables of the results under folders."),
    "report": Command("report.page.command", "Write one HTML page on the runs under folders."),
    "figures": Command("report.figures", "Draw figures of the runs under folders, as PNG, SVG and CSV."),
    "labels": Command(
        "tools.labels.command", "Rank labels by how strongly a model contradicts them, and correct them."
    ),
    "predict": Command("tools.predict", "Print the most probable classes of your own images."),
    "export": Command("tools.export", "Write a run's classes as a linear head: torch, safetensors or ONNX."),
    "inspect": Command("tools.inspect_run", "Show what a run does with each image, and its prompts' nearest words."),
    "profile": Command("tools.profile", "Measure how strongly each training sample pulls at the prompts."),
    "check-data": Command("tools.check_data", "Say whether a data set is usable, and what is missing."),
    "download": Command("tools.download", "Download a data set, or say where to get it."),
    "cache": Command("tools.cache", "List, check or clear the cache of image features."),
    "keys": Command("config.reference", "Explain each configuration key."),
    "trainers": Command("tools.trainers", "Show which prompt learner goes with which method."),
    "demo": Command("tools.demo", "Show the main result on the embedded benchmark: a table and a picture."),
    "evidence": Command("tools.evidence", "Test both papers' claims on the embedded benchmark."),
    "adopt": Command("tools.adopt", "Bring configurations and scripts into a fork of CoOp, MaPLe and so on."),
}
OLD_SPELLINGS = {"--out": "--output", "--epoch": "--load-epoch"}
# A configuration key; keys without a dot are listed, because a word in capitals may be a data set.
_KEY = re.compile(r"([A-Z][A-Z0-9_]*)(\.[A-Z0-9_]+)+|OUTPUT_DIR|RESUME|SEED|USE_CUDA|VERBOSE")


def command_line(name: str, *arguments: object) -> str:
    """Return the words that start a sub-command: `dspt-atlas cache list`."""
    return shlex.join(["dspt-atlas", name, *map(str, arguments)])


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        """State a mistake in one line and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class Parser(_OneLineParser):
    """The parser of a sub-command. Its --help has the line in COMMANDS, then `more`, and ends with an example.

    With `pairs`, KEY VALUE pairs of the configuration may stand anywhere; they become `options.pairs`. `advice` says
    what to do after a failure or a signal. With `mixed`, options may stand between arguments. A command below a
    sub-command has a name of two words, and no line.
    """

    def __init__(
        self,
        name: str,
        example: str,
        more: str = "",
        advice: str = "start it again.",
        pairs: bool = False,
        mixed: bool = False,
    ):
        self.name, self.example, self.advice, self._takes_pairs = name, example, advice, pairs
        self._is_mixed = mixed
        self._with_value: set[str] = set()  # the options that take one value
        self._writes_folder = False
        more += " KEY VALUE pairs (dspt-atlas keys lists them) may stand anywhere, also after --." if pairs else ""
        super().__init__(
            prog=command_line(*name.split()),
            description=textwrap.fill(f"{COMMANDS[name].line if name in COMMANDS else ''} {more}".strip(), 100),
            epilog=f"example:\n  {command_line(*name.split())} {example}".rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--traceback", action="store_true", help="show the source of an error")

    def add_argument(self, *names, **settings):
        """Add an argument as argparse does."""
        action = super().add_argument(*names, **settings)
        if action.nargs is None:
            self._with_value.update(action.option_strings)
        return action

    def add_seeds(self, default: tuple[int, ...], text: str) -> None:
        """Add --seeds, whole numbers from 0 on, separated by spaces or commas."""
        self.add_argument("--seeds", nargs="+", action=_Seeds, default=default, metavar="SEED", help=text)

    def add_output(self, text: str, **settings) -> None:
        """Add --output, a folder; a file of that name is refused before anything is done."""
        self._writes_folder = True
        self.add_argument("--output", metavar="DIR", type=Path, help=text, **settings)

    def add_load_epoch(self) -> None:
        """Add --load-epoch, of a checkpoint in a run's folder."""
        self.add_argument("--load-epoch", type=int, help="of the checkpoint (default: the best, or the last)")

    def add_classnames(self) -> None:
        """Add --classnames, a file of other classes for a shared context."""
        self.add_argument("--classnames", metavar="FILE", type=Path, help="other classes, one name per line")

    def add_commands(self, metavar: str):
        """Return the object to which the parsers of a sub-command's own commands are added."""
        return self.add_subparsers(required=True, metavar=metavar, parser_class=_OneLineParser)

    def parse_args(self, args=None, namespace=None):
        """Return the options, the words that they came from, and with `pairs` KEY VALUE KEY VALUE ... as `pairs`."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words and self._takes_pairs else len(words)
        rest, pairs = self._split([self._today(word) for word in words[:end]])
        parse = self.parse_known_intermixed_args if self._is_mixed else self.parse_known_args
        options, others = parse(rest, namespace)
        options.words = words
        if unknown := others if not self._takes_pairs else [word for word in others if word.startswith("--")]:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        if self._takes_pairs:
            options.pairs = (*pairs, *others, *words[end + 1 :])
        return options

    def _today(self, word: str) -> str:
        """Return an option in its current spelling."""
        name, equals, value = word.partition("=")
        return f"{OLD_SPELLINGS.get(name, name)}{equals}{value}"

    def _split(self, words: list[str]) -> tuple[list[str], list[str]]:
        """Return the other arguments, and the configuration keys with their values."""
        rest, pairs = [], []
        while words:
            word, *words = words
            is_key = self._takes_pairs and _KEY.fullmatch(word) and not (rest and rest[-1] in self._with_value)
            count = 0 if not is_key else 1 if words[:1] and words[0].startswith("--") else 2
            pairs += [word, *words][:count]
            rest += [] if count else [word]
            words = words[max(count - 1, 0) :]
        return rest, pairs

    def call(self, function: Callable, argv: list[str] | None = None) -> int:
        """Call a function with the options that `argv` holds, sys.argv by default; return the exit status."""
        argv = sys.argv[1:] if argv is None else list(argv)
        options = self.parse_args(argv)
        advice = self.advice.replace("{command}", command_line(*self.name.split(), *argv))

        def command():
            if self._writes_folder and options.output is not None:
                options.output = expand_home(options.output)
                check_output(options.output, "--output")
            return function(options)

        return guarded(command, self.prog, advice, options.traceback)


def main_of(build_parser: Callable[[], Parser], function: Callable) -> Callable[..., int]:
    """Return the `main(argv)` of a sub-command, which calls a function with the options; it returns the exit status."""

    def main(argv: list[str] | None = None) -> int:
        return build_parser().call(function, argv)

    return main


class _Seeds(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        words = " ".join(map(str, values or ())).replace(",", " ").split()
        if not words or not all(word.isdecimal() for word in words):
            parser.error(
                "argument --seeds: expected whole numbers from 0 on, such as 1,2,3, got "
                + " ".join(map(str, values or ()))
            )
        setattr(namespace, self.dest, tuple(map(int, words)))


def guarded(command: Callable, prog: str, advice: str, show_traceback: bool = False) -> int:
    """Call a command; return its exit status, 0 if it returns none, or print a sentence and return a status.

    The status is 2 after a mistake, 1 after a failure, 130 or 143 after a signal. If nobody reads standard output any
    more, it is 141 without a sentence, as in other tools.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console may lack letters of a class or a path
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals_raised():
            status = command()
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except Interrupted as signal_name:
        print(f"{prog}: stopped by {signal_name}; {advice}", file=sys.stderr)
        return signal_name.exit_status
    except Exception as error:
        if isinstance(error, BrokenPipeError) and hasattr(select, "poll") and not _has_reader():
            return 128 + signal.SIGPIPE
        if not is_mistake(error) and not is_failure(error):
            raise
        if show_traceback:
            traceback.print_exc()
        print(f"{prog}: {one_line(error)}" + ("" if is_mistake(error) else f"; {advice}"), file=sys.stderr)
        return status_of(error)


def _has_reader() -> bool:
    """Return whether somebody may read standard output; if not (`| head` has ended), further output is dropped."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def leave(status: int) -> None:
    """End this process; after a signal at once, because Python's shutdown prints errors about loaders' dead workers."""
    if status in (130, 143):
        import multiprocessing  # for the start-up's sake

        for child in multiprocessing.active_children():
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
