"""`dspt_atlas.load`: a run's model in one's own program, for every kind of image, in any thread."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_tensor

import dspt_atlas as da
from dspt_atlas.errors import UserError
from dspt_atlas.run.trained import open_run, probabilities
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner

NEW = ["owl", "paper clip", "a_fox"]
LEARNERS = {
    "CoOp": (),
    "CoCoOp": ("TRAINER.COCOOP.N_CTX", 2),
    "DePTCoOp": (),
    "MaPLe": ("INPUT.CACHE", "none"),
    "TCP": ("TRAINER.TCP.BLOCK", 1),
    "ZeroshotCLIP": (),
}


@pytest.fixture(scope="module")
def model(tiny_noisy_run):
    return da.load(tiny_noisy_run)


@pytest.fixture(scope="module")
def paths(tiny_dataset):
    return sorted((tiny_dataset / "test").rglob("*.png"))[::3]


@pytest.fixture(scope="module")
def trained(train_tiny):
    """Return a function (learner) -> the folder of its run, trained once."""
    runs = {}

    def folder(name):
        if name not in runs:
            runs[name] = train_tiny(name, *LEARNERS[name])
        return runs[name]

    return folder


class Samples(torch.utils.data.Dataset):
    """A data set without an end of its own: only its length says it."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index % len(self)]


def test_every_kind_of_image_has_the_probabilities_of_the_runs_trainer(model, tiny_noisy_run, paths):
    trainer = open_run(tiny_noisy_run)
    items = {item.impath: item for item in trainer.dm.dataset.test}
    expected = torch.from_numpy(probabilities(trainer, [items[str(path)] for path in paths]))
    pictures = [Image.open(path) for path in paths]
    bytes_ = [pil_to_tensor(picture) for picture in pictures]
    kinds = {
        "paths": paths,
        "texts": map(str, paths),
        "Pillow": pictures,
        "uint8": bytes_,
        "floats": torch.stack([to_tensor(picture) for picture in pictures]),
        "tuples": Samples([(picture, 3) for picture in pictures]),
        "dicts": Samples([{"img": path, "label": 3} for path in map(str, paths)]),
    }
    for kind, images in kinds.items():
        torch.testing.assert_close(model.probabilities(images), expected, rtol=0, atol=1e-6, msg=kind)
    prepared = torch.stack([model.preprocess(path) for path in paths])
    torch.testing.assert_close(model.probabilities(prepared, 2, preprocessed=True), expected, rtol=0, atol=1e-6)
    best = [trainer.dm.dataset.classnames[label] for label in expected.argmax(dim=1)]
    assert model.predict(Samples(pictures), batch_size=2) == best
    assert model.predict(paths[0]) == model.predict(bytes_[0]) == best[:1]
    assert model.predict([]) == [] and model.probabilities([]).shape == (0, len(model.classnames))


def test_text_features_of_other_classes_are_those_of_the_shared_context(model, tiny_noisy_run, tiny_clip_path, paths):
    clip_model = load_clip(tiny_clip_path)
    learner = CoOpPromptLearner(clip_model, NEW, n_ctx=4)
    learner.load_state_dict(open_run(tiny_noisy_run).model.prompt_learner.state_dict())
    reference = PromptedCLIP(clip_model, learner)
    with torch.no_grad():
        expected = reference.encode_text()
        logits = reference(torch.stack([model.preprocess(path) for path in paths])).logits
    own = model.text_features()
    torch.testing.assert_close(model.text_features(NEW), expected)
    other = model.with_classes(NEW)
    assert other.classnames == NEW and set(other.predict(paths)) <= set(NEW)
    torch.testing.assert_close(other.probabilities(paths), logits.softmax(dim=1))
    assert torch.equal(model.text_features(), own) and len(own) == len(model.classnames) == 4
    torch.testing.assert_close(own.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("name", LEARNERS)
def test_each_learner_takes_its_classes_in_another_order(name, trained, paths):
    model = da.load(trained(name))
    first = model.probabilities(paths)
    assert not first.requires_grad and first.shape == (len(paths), 4)
    other = model.with_classes(model.classnames[::-1])
    torch.testing.assert_close(other.probabilities(paths).flip(1), first, rtol=0, atol=1e-6)
    assert model.to("cpu") is model and model.device == torch.device("cpu")
    assert torch.equal(model.probabilities(paths), first)
    if name == "CoCoOp":
        with pytest.raises(UserError):
            model.text_features()
    else:
        torch.testing.assert_close(other.text_features().flip(0), model.text_features(), rtol=0, atol=1e-6)


MISTAKES = {
    "device": lambda model, paths: model.to("nowhere"),
    "absent device": lambda model, paths: model.to("cuda:99"),
    "not preprocessed": lambda model, paths: model.probabilities(paths, preprocessed=True),
    "another size": lambda model, paths: model.probabilities(torch.zeros(2, 3, 7, 7), preprocessed=True),
    "bytes": lambda model, paths: model.probabilities(model.preprocess(paths[0])[None].byte(), preprocessed=True),
    "batch size": lambda model, paths: model.predict(paths, batch_size="4"),
    "part of a batch": lambda model, paths: model.predict(paths, batch_size=1.5),
    "no word": lambda model, paths: model.nearest_words(0),
    "words": lambda model, paths: model.nearest_words("3"),
    "no class name": lambda model, paths: model.with_classes(["ant", None]),
    "no folder": lambda model, paths: da.load(None),
    "no folders": lambda model, paths: da.results([None]),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_and_changes_nothing(mistake, model, paths):
    other = model.with_classes(NEW)
    before = model.probabilities(paths), other.probabilities(paths)
    with pytest.raises(UserError):
        mistake(model, paths)
    assert torch.equal(model.probabilities(paths), before[0]) and torch.equal(other.probabilities(paths), before[1])


def test_there_are_no_more_nearest_words_than_the_vocabulary_has(model):
    assert model.nearest_words(10**7)["rank"].max() == 49408


def test_a_context_per_class_is_refused_for_other_classes(train_tiny):
    model = da.load(train_tiny("CoOp", "TRAINER.COOP.CSC", True))
    with pytest.raises(UserError, match="CSC"):
        model.with_classes(NEW)


def test_threads_load_and_judge_at_once_and_leave_the_process_alone(tiny_noisy_run, model, paths, capsys):
    expected, output, files = model.probabilities(paths), sys.stdout, {*tiny_noisy_run.rglob("*")}
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    are_loaded = threading.Event()

    def work(_):
        return da.load(tiny_noisy_run).probabilities(paths), model.probabilities(paths)

    def talk():
        lines = 0
        while not are_loaded.wait(0.001):
            print("still here")
            lines += 1
        return lines

    with ThreadPoolExecutor(5) as pool:
        talking = pool.submit(talk)
        found = list(pool.map(work, range(4)))
        are_loaded.set()
    for result in (result for pair in found for result in pair):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert sys.stdout is output and capsys.readouterr().out == "still here\n" * talking.result()
    assert signals == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert {*tiny_noisy_run.rglob("*")} == files


def test_loading_and_judging_draw_nothing_from_the_global_generator(tiny_noisy_run, paths):
    state = torch.get_rng_state()
    da.load(tiny_noisy_run).with_classes(NEW).predict(paths)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "images",
    [3, [3], ["missing.png"], torch.full((3, 8, 8), 2.0), torch.zeros(2, 2, 3, 8, 8), torch.zeros(4, 8, 8)],
    ids=["number", "numbers", "missing", "no pixels", "two batches", "four channels"],
)
def test_what_is_not_an_image_is_refused(images, model):
    with pytest.raises(UserError):
        model.predict(images)


@pytest.mark.parametrize("names", ["owl", [], ["owl", "Owl"], [""]])
def test_names_that_cannot_be_classes_are_refused(names, model):
    with pytest.raises(UserError):
        model.with_classes(names)
