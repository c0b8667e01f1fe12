"""classes.json in a run's folder: what a run keeps of its data set, so that it can classify images without it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

from dspt_atlas.datasets.formats import read_json
from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.errors import UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.trainers.learners.prompts import OtherClassesError, load_prompts

CLASSES_FILE = "classes.json"
INPUT_KEYS = ("SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD")


@dataclass(frozen=True)
class KeptClasses:
    """Class names in the order of their labels, the data set's templates, and the keys of INPUT that prepare an image.

    It takes the data set's place if a trainer only classifies images.
    """

    classnames: list[str]
    templates: list[str]
    input: dict
    prompt_words: dict[str, str] = field(default_factory=dict)  # of names that prompts say in other words

    @classmethod
    def of(cls, cfg, dataset):
        """Return the classes and templates of a data set with the INPUT keys of a configuration."""
        inputs = {key: cfg.INPUT[key] for key in INPUT_KEYS}
        templates = getattr(dataset, "templates", ())
        is_list = isinstance(templates, (list, tuple))
        texts = [template for template in templates if isinstance(template, str)] if is_list else []
        kept = cls(list(dataset.classnames), texts, inputs, dict(getattr(dataset, "prompt_words", {})))
        return cls(**json.loads(json.dumps(asdict(kept))))

    @classmethod
    def read(cls, folder):
        """Return the content of a run's classes.json, or None without the file; raises UserError for a damaged one."""
        path = Path(folder, CLASSES_FILE)
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            kept = cls(**content)
            texts = [*kept.classnames, *kept.templates, *kept.prompt_words.values()]
            is_whole = (
                kept.classnames and all(isinstance(text, str) for text in texts) and {*kept.input} == {*INPUT_KEYS}
            )
        except (AttributeError, TypeError):
            is_whole = False
        if not is_whole:
            raise UserError(
                f"Expected class names, templates and the keys of INPUT in {path}, but it is damaged: start the "
                "training again in another folder."
            )
        return kept

    def save(self, folder, is_resumed=False):
        """Write the file; raises UserError if a resumed run has kept other classes."""
        before = self.read(folder) if is_resumed else None
        if before is not None and (before.classnames, before.prompt_words) != (self.classnames, self.prompt_words):
            raise UserError(
                f"{folder} was trained on the classes {', '.join(before.classnames)}, but the data now has "
                f"{', '.join(self.classnames)}: choose another --output-dir, or restore the data."
            )
        write_atomically(Path(folder, CLASSES_FILE), json.dumps(asdict(self), indent=1) + "\n")

    @property
    def keys(self):
        """Return the input as {configuration key: value}."""
        return {f"INPUT.{key}": value for key, value in self.input.items()}


def load_run(prompt_learner, state, folder, dataset):
    """Load the prompts of a run's checkpoint; raises UserError as `load_prompts`.

    The run's folder tells whether a class-specific context has the data set's classes in another order.
    """
    try:
        load_prompts(prompt_learner, state)
    except OtherClassesError:
        kept = KeptClasses.read(folder)
        learned, own = prompt_names(kept) if kept else [], prompt_names(dataset)
        if learned == own or sorted(learned) != sorted(own):
            raise
        label = next(label for label, names in enumerate(zip(learned, own, strict=True)) if len({*names}) > 1)
        raise UserError(
            f"Expected the classes in the order in which {folder} has learned its class-specific context (CSC), but "
            f'class {label} was "{learned[label]}" there and is "{own[label]}" here: number the classes as its '
            f"{CLASSES_FILE} does, for OwnCSV by a column label besides classname."
        ) from None


def without_data(trainer, kept):
    """Return a subclass of a trainer's class, built from a run's classes.json, that classifies but cannot train."""

    def build_data_loader(self):
        self.dm = SimpleNamespace(dataset=kept)
        self.train_loader_x = self.train_loader_u = self.val_loader = self.test_loader = None
        self.num_classes, self.num_source_domains = len(kept.classnames), 0
        self.lab2cname = dict(enumerate(kept.classnames))

    return type(trainer.__name__, (trainer,), {"build_data_loader": build_data_loader, "__doc__": trainer.__doc__})
