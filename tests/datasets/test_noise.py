"""Label noise: exact counts, directions, its own generator, unchanged class names, records to apply again."""

import doctest
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from hypothesis import given
from hypothesis import strategies as st

from dspt_atlas.datasets import noise
from dspt_atlas.datasets.noise import NoiseRecord, corrupt_labels
from dspt_atlas.datasets.noisy import register_noisy
from support.refusals import refused

RELABEL = ("DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)
RATES = st.floats(0, 1, exclude_max=True)


def _swap(kind, rate=0.5):
    return "DATASET.NOISE.FAMILY", "swap", "DATASET.NOISE.TYPE", kind, "DATASET.NOISE.RATE", rate


def _labels(dataset):
    return [item.label for item in dataset.train_x]


def _state(items):
    return [(item.impath, item.label, item.classname, item.domain) for item in items]


def test_doctest():
    assert doctest.testmod(noise).failed == 0


@given(LABELS, RATES, st.integers(0, 2**40), st.sampled_from(["sym", "asym"]))
def test_exactly_int_of_rate_times_n_labels_are_wrong(labels, rate, seed, kind):
    before = list(labels)
    noisy = corrupt_labels(labels, 5, kind, rate, seed)
    changed = [(clean, given) for clean, given in zip(labels, noisy, strict=True) if clean != given]
    assert labels == before
    assert len(changed) == int(rate * len(labels))
    assert all(0 <= given < 5 for given in noisy)
    if kind == "asym":
        assert all(given == (clean + 1) % 5 for clean, given in changed)


@given(LABELS, RATES, st.integers(0, 2**40))
def test_counts_are_exact_in_every_class_on_request(labels, rate, seed):
    noisy = corrupt_labels(labels, 5, "sym", rate, seed, per_class=True)
    wrong = Counter(clean for clean, given in zip(labels, noisy, strict=True) if clean != given)
    assert wrong == {label: int(rate * n) for label, n in Counter(labels).items() if int(rate * n)}


def test_symmetric_noise_is_uniform_over_the_other_classes():
    noisy = corrupt_labels([3] * 40_000, 5, "sym", 0.5, 1)
    counts = Counter(noisy)
    assert counts[3] == 20_000
    assert all(abs(counts[label] - 5_000) < 5 * 61 for label in (0, 1, 2, 4))  # five standard deviations


def test_noise_neither_uses_nor_changes_global_generators():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    first = corrupt_labels(list(range(10)) * 10, 10, "sym", 0.5, 3)
    assert states() == before
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert corrupt_labels(list(range(10)) * 10, 10, "sym", 0.5, 3) == first
    assert corrupt_labels(list(range(10)) * 10, 10, "sym", 0.5, 4) != first


@pytest.mark.parametrize("labels", [(0, 1, 2), np.array([0, 1, 2]), torch.tensor([0, 1, 2])])
def test_label_sequences_of_all_kinds(labels):
    noisy = corrupt_labels(labels, 3, "asym", 0.99, 0)
    assert [type(label) for label in noisy] == [int] * 3
    assert sum(label != clean for label, clean in enumerate(noisy)) == 2


@pytest.mark.parametrize("kind, rate", [("none", 0.5), ("sym", 0), ("asym", 0.0)])
def test_no_noise(kind, rate):
    assert corrupt_labels([0, 1], 2, kind, rate, 1) == [0, 1]


@pytest.mark.parametrize(
    "arguments, facts",
    [
        (([0, 1], 2, "sym", 50, 1), ("[0, 1)", "50", "0.5")),
        (([0, 1], 2, "sym", 1.0, 1), ("[0, 1)", "1.0")),
        (([0, 1], 2, "sym", 1.5, 1), ("[0, 1)", "1.5", "0.015")),
        (([0, 1], 2, "sym", 100, 1), ("[0, 1)", "100")),
        (([0, 1], 2, "sym", -0.1, 1), ("[0, 1)", "-0.1")),
        (([0, 1], 2, "sym", float("nan"), 1), ("[0, 1)", "nan")),
        (([0, 1], 2, "sym", "0.5", 1), ("[0, 1)", "0.5")),
        (([0, 1], 2, "symmetric", 0.5, 1), ("none, sym, asym", '"symmetric"')),
        (([0, 1], 2, "pairflip", 0.5, 1), ("pairflip", "DATASET.NOISE.FAMILY swap")),
        (([0, 0], 1, "sym", 0.5, 1), ("two classes", "1")),
        (([0, 2], 2, "sym", 0.5, 1), ("[0, 2)", "2")),
        (([0.5, 1], 2, "sym", 0.5, 1), ("labels", "whole numbers")),
    ],
)
def test_impossible_noise_is_refused_with_a_sentence(arguments, facts):
    with refused(*facts):
        corrupt_labels(*arguments)


def test_an_unknown_family_is_refused_with_the_choices():
    with refused("DATASET.NOISE.FAMILY", "relabel, swap", '"flip"'):
        noise.check_noise("flip", "sym", 0.5)


def test_a_seed_gives_the_labels_that_it_has_always_given():
    labels = [0, 1, 2, 3] * 3
    assert corrupt_labels(labels, 4, "sym", 0.5, seed=1) == [0, 1, 3, 3, 2, 0, 2, 2, 0, 2, 2, 1]
    by_class = corrupt_labels(labels, 4, "asym", 0.5, seed=1, per_class=True)
    assert by_class == [0, 1, 2, 3, 1, 2, 2, 0, 0, 1, 3, 3]


def test_a_record_whose_lists_differ_in_length_is_not_saved(tmp_path):
    record = NoiseRecord("Own", "relabel", "sym", 0.5, 1, False, 2, ["a.jpg", "b.jpg"], [0, 1], [1])
    with pytest.raises(ValueError):
        record.save(tmp_path / "noise.json")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shots", [4, -1])
def test_a_noisy_data_set_changes_training_labels_only(shots, caltech_tree, load_dataset):
    clean = load_dataset("Caltech101", caltech_tree, "DATASET.NUM_SHOTS", shots)
    noisy = load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NUM_SHOTS", shots, *RELABEL)
    record = noisy.noise
    assert [item.impath for item in noisy.train_x] == [item.impath for item in clean.train_x]
    assert (record.clean, record.given) == (_labels(clean), _labels(noisy))
    assert sum(a != b for a, b in zip(record.clean, record.given, strict=True)) == len(record.clean) // 2
    assert (_state(noisy.val), _state(noisy.test)) == (_state(clean.val), _state(clean.test))
    assert (noisy.lab2cname, noisy.classnames, noisy.num_classes) == (clean.lab2cname, clean.classnames, 5)
    assert all(item.classname == noisy.lab2cname[item.label] for item in noisy.train_x)
    assert record.paths[0] == clean.train_x[0].impath.removeprefix(f"{caltech_tree}/")
    assert record.realised_rate == 0.5
    assert type(noisy).templates == type(clean).templates


@pytest.mark.parametrize("options", [(), ("DATASET.NOISE.TYPE", "sym"), ("DATASET.NOISE.RATE", 0.3)])
def test_no_noise_leaves_the_data_as_it_is(options, caltech_tree, load_dataset):
    noisy = load_dataset("NoisyCaltech101", caltech_tree, *options)
    assert getattr(noisy, "noise", None) is None
    assert _state(noisy.train_x) == _state(load_dataset("Caltech101", caltech_tree).train_x)


def test_the_noise_s_seed_is_the_run_s_unless_given(caltech_tree, load_dataset):
    def given(seed, noise_seed):
        options = ("SEED", seed, "DATASET.NOISE.SEED", noise_seed, *RELABEL)
        record = load_dataset("NoisyCaltech101", caltech_tree, *options).noise
        return record.seed, record.given

    assert given(7, -1) == given(3, 7) == given(7, 7)
    assert given(0, -1)[0] == 0
    assert given(1, -1) != given(2, -1)


def test_without_any_seed_the_one_drawn_is_told_and_recorded(caltech_tree, load_dataset, capsys):
    noise = load_dataset("NoisyCaltech101", caltech_tree, "SEED", -1, *RELABEL).noise
    assert f"DATASET.NOISE.SEED {noise.seed}" in capsys.readouterr().out
    again = load_dataset("NoisyCaltech101", caltech_tree, "SEED", -1, "DATASET.NOISE.SEED", noise.seed, *RELABEL).noise
    assert again == noise


@pytest.mark.parametrize("kind", ["symflip", "pairflip"])
def test_swapped_images_come_from_other_classes_outside_the_clean_pool(kind, caltech_tree, load_dataset):
    clean = load_dataset("Caltech101", caltech_tree, "DATASET.NUM_SHOTS", 4)
    noisy = load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NUM_SHOTS", 4, *_swap(kind))
    everything = {item.impath: item.label for item in load_dataset("Caltech101", caltech_tree).train_x}
    pool = {item.impath for item in clean.train_x}
    record = noisy.noise
    assert _labels(noisy) == _labels(clean) == record.given
    assert record.clean == [everything[item.impath] for item in noisy.train_x]
    swapped = [(new, old) for new, old in zip(noisy.train_x, clean.train_x, strict=True) if new.impath != old.impath]
    assert Counter(old.label for _, old in swapped) == dict.fromkeys(range(5), 2)
    assert not pool & {new.impath for new, _ in swapped}
    assert len({item.impath for item in noisy.train_x}) == len(noisy.train_x)
    shifts = {(everything[new.impath] - old.label) % 5 for new, old in swapped}
    assert shifts == {1} if kind == "pairflip" else 0 not in shifts
    assert (noisy.classnames, record.realised_rate) == (clean.classnames, 0.5)


def test_swaps_without_images_to_take_are_refused(caltech_tree, load_dataset):
    for kind, shots in (("pairflip", 6), ("symflip", 8), ("symflip", -1)):
        with refused(kind, "0.75"):
            load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NUM_SHOTS", shots, *_swap(kind, 0.75))


@pytest.mark.parametrize("options", [RELABEL, _swap("symflip"), _swap("pairflip")])
def test_a_saved_noise_file_reproduces_the_training_set(options, caltech_tree, load_dataset, tmp_path):
    shots = ("DATASET.NUM_SHOTS", 4)
    noisy = load_dataset("NoisyCaltech101", caltech_tree, *shots, *options)
    path = tmp_path / "noise.json"
    noisy.noise.save(path)
    again = load_dataset("NoisyCaltech101", caltech_tree, *shots, "DATASET.NOISE.FILE", str(path))
    assert _state(again.train_x) == _state(noisy.train_x)
    assert again.noise == noisy.noise == NoiseRecord.load(path)


def test_the_file_shows_what_was_done(caltech_tree, load_dataset, tmp_path):
    load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NUM_SHOTS", 3, *RELABEL).noise.save(tmp_path / "noise.json")
    content = json.loads((tmp_path / "noise.json").read_text())
    expected = {"family": "relabel", "type": "sym", "rate": 0.5, "seed": 1, "per_class": False, "num_classes": 5}
    assert {**content, **expected, "realised_rate": 7 / 15} == content
    assert content["samples"][2].keys() == {"index", "path", "clean", "given"}
    assert content["samples"][2]["path"].startswith("caltech-101/101_ObjectCategories/dir2/")


@pytest.mark.parametrize(
    "options, said",
    [
        (("DATASET.NUM_SHOTS", 3), "15 of 5"),
        (("DATASET.NUM_SHOTS", 4, "SEED", 2), "sample"),
        (("DATASET.NUM_SHOTS", 4, "DATASET.NOISE.TYPE", "asym"), "sym"),
        (("DATASET.NUM_SHOTS", 4, "DATASET.NOISE.RATE", 0.25), "0.5"),
        (("DATASET.NUM_SHOTS", 4, "DATASET.SUBSAMPLE_CLASSES", "base"), "12 of 3"),
    ],
)
def test_a_noise_file_for_something_else_is_refused(options, said, caltech_tree, load_dataset, tmp_path):
    path = tmp_path / "noise.json"
    load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NUM_SHOTS", 4, *RELABEL).noise.save(path)
    with refused(path, said):
        load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NOISE.FILE", str(path), *options)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("samples"),
        lambda c: c.update(samples=[]),
        lambda c: c["samples"].pop(1),
        lambda c: c["samples"][0].update(given=7),
        lambda c: c["samples"][0].update(given=True),
        lambda c: c.update(realised_rate=0.1),
        lambda c: c.update(extra=1),
    ],
)
def test_a_tampered_noise_file_is_refused(change, caltech_tree, load_dataset, tmp_path):
    path = tmp_path / "noise.json"
    load_dataset("NoisyCaltech101", caltech_tree, *RELABEL).noise.save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with refused(path, *(["realised rate"] if content.get("realised_rate") == 0.1 else [])):
        load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NOISE.FILE", str(path))


def test_a_missing_or_broken_noise_file_is_refused(caltech_tree, load_dataset, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for name in ("absent.json", "broken.json"):
        with refused(tmp_path / name):
            load_dataset("NoisyCaltech101", caltech_tree, "DATASET.NOISE.FILE", str(tmp_path / name))


@pytest.fixture
def foreign(tiny_cfg, tmp_path):
    """A data set that somebody else registered, with domains, and a config for its noisy version."""

    class Foreign(DatasetBase):
        def __init__(self, cfg):
            (tmp_path / "x.png").touch()
            path = str(tmp_path / "x.png")
            items = [Datum(impath=path, label=label, domain=3, classname=f"c{label}") for label in (1, 0) * 6]
            test = items if cfg.DATASET.SUBSAMPLE_CLASSES == "base" else items[:2]
            super().__init__(train_x=items, test=test)

    DATASET_REGISTRY.register(Foreign, force=True)
    return lambda *options: tiny_cfg("CoOp", "x", tmp_path, "DATASET.NAME", "NoisyForeign", *options)


def test_foreign_data_sets_get_relabel_noise(foreign):
    dataset = build_dataset(foreign(*RELABEL))
    assert sum(a != b for a, b in zip(dataset.noise.clean, dataset.noise.given, strict=True)) == 6
    assert {(item.domain, item.classname) for item in dataset.train_x} == {(3, "c0"), (3, "c1")}
    assert {item.label for item in dataset.train_x if item.classname == "c1"} == {1}
    assert [item.label for item in dataset.test] == [1, 0]


def test_foreign_data_sets_are_refused_swaps_and_shared_lists(foreign):
    with refused("Foreign"):
        build_dataset(foreign(*_swap("symflip")))
    with refused("Foreign"):
        build_dataset(foreign("DATASET.SUBSAMPLE_CLASSES", "base", *RELABEL))


def test_registration_is_idempotent_follows_replacements_and_leaves_names_of_others_alone(foreign):
    foreign()
    first = DATASET_REGISTRY.get("NoisyForeign")
    register_noisy()
    assert DATASET_REGISTRY.get("NoisyForeign") is first
    assert "NoisyNoisyForeign" not in DATASET_REGISTRY.registered_names()

    replacement = type("Foreign", (first.clean_class,), {})
    DATASET_REGISTRY.register(replacement, force=True)
    register_noisy()
    assert issubclass(DATASET_REGISTRY.get("NoisyForeign"), replacement)

    theirs = type("NoisyForeign", (DatasetBase,), {})
    DATASET_REGISTRY.register(theirs, force=True)
    register_noisy()
    assert DATASET_REGISTRY.get("NoisyForeign") is theirs
    DATASET_REGISTRY.register(first, force=True)
