"""The command line of one run, and what every command of this project does about mistakes and signals."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import select
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from yacs.config import CfgNode

from dspt_atlas.commands import command_of
from dspt_atlas.config.build import build_cfg
from dspt_atlas.errors import FAILURES, MISTAKES, one_line, status_of
from dspt_atlas.run.folder import Interrupted
from dspt_atlas.run.runs import run

SAME_SIGNAL_SECONDS = 2  # within which a second signal adds nothing to the first


class Parser(argparse.ArgumentParser):
    """A parser that states a mistake in one line."""

    def error(self, message):
        """Print the mistake and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> Parser:
    """Return the parser of train.py: the options of the CoOp family."""
    parser = Parser(
        prog="train.py",
        description="Train a method on a data set and evaluate it, or evaluate what was trained. A finished output "
        "folder is left alone, an unfinished one continued.",
        epilog="Later sources win: defaults, data set yaml, trainer yaml, options, KEY VALUE pairs.",
    )
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--output-dir", help="folder of this run (default: ./output)")
    parser.add_argument("--resume", help="folder whose checkpoints to start from (default: the output folder)")
    parser.add_argument("--seed", type=int, help="seed, 0 included; -1: none")
    parser.add_argument("--source-domains", nargs="+", help="domains to train on")
    parser.add_argument("--target-domains", nargs="+", help="domains to test on")
    parser.add_argument("--transforms", nargs="+", help="training transforms")
    parser.add_argument("--config-file", help="trainer yaml, such as configs/trainers/CoOp/rn50_ep50.yaml")
    parser.add_argument("--dataset-config-file", help="data set yaml, such as configs/datasets/caltech101.yaml")
    parser.add_argument("--trainer", help="trainer, such as CoOpDSPT")
    parser.add_argument("--backbone", help="OpenAI's name of a CLIP, a checkpoint's path, EmojiRN or EmojiViT")
    parser.add_argument("--head", help="head of the family's other trainers; not used by ours")
    parser.add_argument("--clip-dir", help="folder of OpenAI's weights")
    parser.add_argument("--eval-only", action="store_true", help="evaluate the model in --model-dir")
    parser.add_argument("--model-dir", default="", help="output folder of the training run to evaluate")
    parser.add_argument("--load-epoch", type=int, help="epoch to evaluate (default: the best, else the last)")
    parser.add_argument("--no-train", action="store_true", help="build everything and stop")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys, at the end")
    return parser


def read_arguments(argv: list[str]) -> tuple[CfgNode, argparse.Namespace]:
    """Return the frozen configuration and the options that train.py's arguments describe; raises UserError."""
    options = build_parser().parse_args(argv)
    return build_cfg(vars(options), [value for value in options.opts if value != "--"]), options


def run_arguments(argv: list[str]) -> dict | None:
    """Do the run that train.py's arguments describe and return what its result.json holds."""
    cfg, options = read_arguments(argv)
    name = Path(options.config_file or "").stem
    return run(cfg, options.eval_only, options.model_dir, options.load_epoch, options.no_train, name)


def main(argv: list[str] | None = None) -> int:
    """Run train.py; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    advice = f"start it again and it goes on after its last finished epoch: {command_of('train.py')} {shlex.join(argv)}"
    return guarded(lambda: run_arguments(argv), "train.py", advice, "--traceback" in argv)


def guarded(command: Callable, prog: str, advice: str, show_traceback: bool = False) -> int:
    """Call a command; return its exit status, 0 if it returns none, or print a sentence and return a status.

    That is 2 after a mistake, 1 after a failure, 130 or 143 after a signal. Where nobody reads standard output any more
    it returns 141, without a sentence, as other tools do.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a console without the letters of a class or a path stops no run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals_raised():
            status = command()
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except Interrupted as signal_name:
        print(f"{prog}: stopped by {signal_name}; {advice}", file=sys.stderr)
        return signal_name.exit_status
    except (*MISTAKES, *FAILURES) as error:
        if isinstance(error, BrokenPipeError) and not _has_reader():
            return 128 + signal.SIGPIPE
        if show_traceback:
            traceback.print_exc()
        is_mistake = isinstance(error, MISTAKES)
        print(f"{prog}: {one_line(error)}" + ("" if is_mistake else f"; {advice}"), file=sys.stderr)
        return status_of(error)


def _has_reader() -> bool:
    """Return whether anybody may read standard output; if not (`| head` has seen enough), what follows is thrown away."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def leave(status: int) -> None:
    """End this process; after a signal at once, since the interpreter's own shutdown complains of loaders' dead workers."""
    if status in (130, 143):
        for child in multiprocessing.active_children():
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


@contextlib.contextmanager
def signals_raised():
    """Turn SIGINT and SIGTERM into `Interrupted` in this process; a data loader's worker just ends.

    One that follows at once says the same (a sweep's run gets Ctrl-C from the terminal and from the sweep). Where one comes while an object is being deleted, Python drops the exception: it is raised again shortly after.
    """
    owner, hook, usual, came, first = os.getpid(), sys.unraisablehook, sys.excepthook, [], []

    def stop(signum, frame):
        if os.getpid() != owner:
            os._exit(128 + signum)
        if signum != signal.SIGALRM:
            first.append(time.monotonic())
            if first[-1] - first[0] < SAME_SIGNAL_SECONDS and len(first) > 1:
                return
        # Torch's handler would raise for loaders' workers, which end too, until this process has ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        came.append(signum)
        raise Interrupted(came[0] if signum == signal.SIGALRM else signum)

    def raise_again(dropped):
        if isinstance(dropped.exc_value, Interrupted):
            came[:] = [dropped.exc_value.exit_status - 128]
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        elif not came:  # what is deleted while a stopped run unwinds, such as a loader with dead workers, is no news
            hook(dropped)

    def say(kind, error, trace):
        # A worker that was handing over a batch when its run was stopped has nothing to say.
        if os.getpid() == owner or not issubclass(kind, (EOFError, ConnectionError)):
            usual(kind, error, trace)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {signum: signal.signal(signum, stop) for signum in handled}
    sys.unraisablehook, sys.excepthook = raise_again, say
    try:
        yield
    except Interrupted as interrupted:
        # So that what the frames hold, such as half a loader, is deleted while this hook is there.
        traceback.clear_frames(interrupted.__traceback__)
        raise
    finally:
        sys.unraisablehook, sys.excepthook = hook, usual
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in before.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    leave(main())
