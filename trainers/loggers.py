"""TensorBoard and Weights & Biases as options (TRAIN.LOGGERS): dassl's writer of scalars is one or several of them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dspt_atlas.errors import one_line
from dspt_atlas.keys.declare import flatten
from dspt_atlas.trainers.clip.checkpoints import optional_package
from dspt_atlas.trainers.keys import LOGGERS


def check_loggers(names):
    """Raise UserError for a logger whose package is not there."""
    for name in names:
        optional_package(LOGGERS[name], name, f"TRAIN.LOGGERS {name}")


def scalars_of(entry: dict) -> Iterator[tuple[str, float]]:
    """Yield (tag, value) of an epoch of `history`, such as epoch/test_accuracy and gradient/CE/right."""
    for name, value in flatten(entry):
        if name != "epoch" and isinstance(value, (int, float)):
            yield name.replace(".", "/") if "." in name else f"epoch/{name}", value


def open_loggers(trainer, log_dir, open_tensorboard):
    """Return the loggers of a trainer's TRAIN.LOGGERS as one writer; `trainer.made` gets the folders that are new.

    open_tensorboard: dassl's own, from a folder; it leaves its writer in `trainer._writer`.
    """
    loggers, folder, names = Loggers(), Path(trainer.output_dir), trainer.cfg.TRAIN.LOGGERS

    def tensorboard():
        open_tensorboard(log_dir)
        return trainer._writer

    def wandb():
        trainer.made += [] if (folder / "wandb").exists() else [folder / "wandb"]
        return Wandb(folder, trainer.cfg)

    if "tensorboard" in names:
        loggers.add("tensorboard", tensorboard, lambda: points_of_tensorboard(log_dir))
    if "wandb" in names:
        loggers.add("wandb", wandb, lambda: Wandb.points(folder))
    return loggers


class Loggers:
    """Writers as one writer of dassl's.

    A point that a writer has from an earlier start is not written again. A writer that fails is left, and a line says
    so: the run goes on.
    """

    def __init__(self):
        self._writers, self._written = {}, {}

    def add(self, name, make, written):
        """Add a writer; written() returns the (tag, step) that it has from earlier starts, and make() the writer."""
        with self._surviving(name):
            self._written[name] = written()
            self._writers[name] = make()

    def add_scalar(self, tag, value, step):
        """Give a scalar to each writer that does not have it."""
        for name, writer in list(self._writers.items()):
            if (tag, step) not in self._written[name]:
                with self._surviving(name):
                    writer.add_scalar(tag, value, step)

    def close(self):
        """Close the writers."""
        for name, writer in list(self._writers.items()):
            with self._surviving(name):
                writer.close()

    @contextlib.contextmanager
    def _surviving(self, name):
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth a training
            self._writers.pop(name, None)
            print(f"NOTE: {name} writes no more, and the run goes on ({one_line(error)})", file=sys.stderr)


def points_of_tensorboard(folder):
    """Return the (tag, step) of all scalars in a folder of tensorboard's files; a damaged end is left out."""
    if not any(Path(folder).glob("events.out.tfevents.*")):
        return set()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {(tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


class Wandb:
    """A run of Weights & Biases in a run's folder; offline unless WANDB_MODE is set. A resumed run keeps its id."""

    def __init__(self, folder, cfg):
        wandb = optional_package("wandb", "wandb", "TRAIN.LOGGERS wandb")
        self.folder = Path(folder, "wandb")
        ids = [path.name.rpartition("-")[2] for path in sorted(self.folder.glob("*run-*-*"))]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dspt-atlas"),
            name=f"{cfg.TRAINER.NAME} {cfg.DATASET.NAME} seed {cfg.SEED}",
            id=ids[-1] if ids else None,
            resume="allow",
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(flatten(cfg)),
            settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
        )
        for tags, axis in (("*", "epoch"), ("train/*", "batch")):
            self._run.define_metric(tags, step_metric=axis)

    @staticmethod
    def _list_of_points(folder):
        return folder / "points.txt"

    @classmethod
    def points(cls, folder):
        """Return the (tag, step) that earlier starts have written."""
        path = cls._list_of_points(Path(folder, "wandb"))
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {(tag, int(step)) for tag, _, step in (line.rpartition(" ") for line in lines) if step.isdecimal()}

    def add_scalar(self, tag, value, step):
        """Log a scalar at a batch (train/...) or an epoch."""
        self._run.log({tag: value, "batch" if tag.startswith("train/") else "epoch": step})
        with open(self._list_of_points(self.folder), "a", encoding="utf-8") as file:
            file.write(f"{tag} {step}\n")

    def close(self):
        """Finish the run."""
        self._run.finish()
