"""Properties of noise, splits, schedules and merged results, over inputs that hypothesis draws."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dspt_atlas.datasets.fewshot import VAL_SHOTS, few_shot_splits, sample_few_shot, subsample_classes
from dspt_atlas.datasets.noise import NoiseRecord, corrupt_labels, draw_swaps
from dspt_atlas.errors import UserError
from dspt_atlas.results.read import frame_of, load
from dspt_atlas.results.record import noise_label, to_row
from dspt_atlas.results.rows import SETTING
from dspt_atlas.trainers.losses import partitioned_loss, prediction_entropy, teacher_free_loss, uniform_divergence
from support.refusals import refused
from support.results import fields_of

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)
RATES = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**40)


class Sample(NamedTuple):
    impath: str
    label: int


def _samples(labels, prefix=""):
    return [Sample(f"{prefix}{index}", label) for index, label in enumerate(labels)]


@given(LABELS, RATES, SEEDS, st.sampled_from(["sym", "asym"]), st.booleans())
def test_noise_is_repeatable_and_wrong_only_where_it_says(labels, rate, seed, kind, per_class):
    noisy = corrupt_labels(labels, 5, kind, rate, seed, per_class)
    assert noisy == corrupt_labels(labels, 5, kind, rate, seed, per_class)
    record = NoiseRecord(
        "D", "relabel", kind, rate, seed, per_class, 5, [str(i) for i in range(len(labels))], labels, noisy
    )
    assert record.realised_rate == sum(a != b for a, b in zip(labels, noisy, strict=True)) / len(labels) <= rate


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20), RATES, SEEDS)
def test_a_noise_record_survives_its_file(tmp_path_factory, pairs, rate, seed):
    clean, given_labels = map(list, zip(*pairs, strict=True))
    paths = [f"a/{index}.png" for index in range(len(pairs))]
    record = NoiseRecord("D", "relabel", "sym", rate, seed, False, 4, paths, clean, given_labels)
    path = tmp_path_factory.mktemp("record") / "noise.json"
    record.save(path)
    assert NoiseRecord.load(path) == record
    content = json.loads(path.read_text())
    assert [sample["path"] for sample in content["samples"]] == paths
    assert content["realised_rate"] == record.realised_rate


@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=4),
    st.integers(0, 5),
    RATES,
    SEEDS,
    st.sampled_from(["symflip", "pairflip"]),
)
def test_swaps_bring_unused_images_of_other_classes(sizes, spare, rate, seed, kind):
    items = _samples([label for label, size in enumerate(sizes) for _ in range(size)])
    outside = _samples([label for label in range(len(sizes)) for _ in range(spare)], "outside")
    wanted = {label: round(rate * size) for label, size in enumerate(sizes)}
    try:
        swaps = draw_swaps(items, items + outside, len(sizes), kind, rate, seed)
    except UserError as error:
        assert kind in str(error)
        if kind == "pairflip":
            assert any(count > spare for count in wanted.values())
        assert sum(wanted.values()) > spare * (1 if kind == "pairflip" else len(sizes) - 1)
        return
    assert Counter(items[index].label for index in swaps) == {label: n for label, n in wanted.items() if n}
    assert len({donor.impath for donor in swaps.values()}) == len(swaps)
    assert {donor.impath for donor in swaps.values()} <= {item.impath for item in outside}
    for index, donor in swaps.items():
        assert donor.label != items[index].label
        if kind == "pairflip":
            assert donor.label == (items[index].label + 1) % len(sizes)
    assert swaps == draw_swaps(items, items + outside, len(sizes), kind, rate, seed)


def test_symflip_draws_from_every_other_class():
    items = _samples([0] * 60)
    outside = _samples([label for label in range(4) for _ in range(60)], "outside")
    swaps = draw_swaps(items, items + outside, 4, "symflip", 0.99, 1)
    assert {donor.label for donor in swaps.values()} == {1, 2, 3}


@pytest.mark.parametrize("wrong", [{"given": 4}, {"clean": -1}, {"given": 1.0}, {"given": True}])
@pytest.mark.parametrize("position", [0, 1])
def test_a_label_that_is_none_is_refused_at_every_place_of_a_noise_file(wrong, position, tmp_path):
    NoiseRecord("D", "relabel", "sym", 0.5, 1, False, 4, ["a", "b", "c"], [0, 1, 2], [1, 2, 3]).save(
        tmp_path / "noise.json"
    )
    content = json.loads((tmp_path / "noise.json").read_text())
    content["samples"][position].update(wrong)
    (tmp_path / "noise.json").write_text(json.dumps(content))
    with refused(tmp_path / "noise.json"):
        NoiseRecord.load(tmp_path / "noise.json")


def _probabilities(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


@given(
    st.integers(1, 4).flatmap(
        lambda classes: st.lists(
            st.tuples(
                st.lists(st.floats(-5, 5), min_size=classes, max_size=classes),
                st.integers(0, classes - 1),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(deadline=None, max_examples=40)
def test_losses_of_the_baselines_equal_their_definitions(samples):
    rows, labels, clean = map(list, zip(*samples, strict=True))
    logits, target = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    probs = [_probabilities(row) for row in rows]
    classes, size = len(rows[0]), len(rows)
    partitioned = sum(-math.log(p[y]) if c else 1 - p[y] for p, y, c in zip(probs, labels, clean, strict=True)) / size
    assert partitioned_loss(logits, target, torch.tensor(clean)).item() == pytest.approx(partitioned, abs=1e-9)
    entropy = [-sum(q * math.log(q) for q in p) for p in probs]
    assert prediction_entropy(logits).tolist() == pytest.approx(entropy, abs=1e-9)
    mean = [sum(column) / size for column in zip(*probs, strict=True)]
    divergence = sum(math.log(1 / classes / m) / classes for m in mean)
    assert uniform_divergence(logits).item() == pytest.approx(divergence, abs=1e-9)
    total = 0
    for p, y in zip(probs, labels, strict=True):
        teacher = _probabilities([(0.99 if k == y else 0.01 / (classes - 1)) / 20 for k in range(classes)])
        divergence = sum(t * math.log(t / q) for t, q in zip(teacher, p, strict=True))
        total += -0.9 * math.log(p[y]) + 0.1 * 100 * divergence
    assert teacher_free_loss(logits, target).item() == pytest.approx(total / size, abs=1e-6)


@pytest.mark.parametrize("is_clean", [torch.tensor([True]), torch.tensor([1, 0])])
def test_a_partition_of_the_wrong_kind_is_refused(is_clean):
    with refused("`is_clean`", "(2,)", "bool", error=ValueError):
        partitioned_loss(torch.zeros(2, 3), torch.tensor([0, 1]), is_clean)


@given(LABELS, LABELS, st.integers(1, 9), SEEDS)
def test_training_shots_do_not_depend_on_the_validation_set(train, val, shots, seed):
    train, val = _samples(train), _samples(val, "val")
    chosen, chosen_val = few_shot_splits(train, val, shots, seed)
    assert chosen == sample_few_shot(train, shots, seed) == few_shot_splits(train, [], shots, seed)[0]
    available = Counter(item.label for item in val)
    assert Counter(item.label for item in chosen_val) == {
        label: min(shots, VAL_SHOTS, count) for label, count in available.items()
    }
    assert set(chosen_val) <= set(val)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.lists(st.integers(0, 9), max_size=40))
def test_base_and_new_are_a_partition_of_the_classes(train, test):
    labels = sorted(set(train))
    assume(len(labels) > 1)
    train, test = _samples(train), _samples(test, "test")
    halves = {choice: subsample_classes(choice, train, test) for choice in ("base", "new")}
    names = dict(enumerate(labels))
    shift = {"base": 0, "new": (len(labels) + 1) // 2}
    for choice, (part, test_part) in halves.items():
        assert {item.label for item in part} == set(range(len(names) - shift["new"] if shift[choice] else shift["new"]))
        for items, source in ((part, train), (test_part, test)):
            original = {item.impath: item.label for item in source}
            assert all(original[item.impath] == names[item.label + shift[choice]] for item in items)
    kept = [item.impath for choice in halves for item in halves[choice][1]]
    assert sorted(kept) == sorted(item.impath for item in test if item.label in set(labels))
    assert len(halves["base"][0]) + len(halves["new"][0]) == len(train)


def _rates(cfg, steps, scheduler=None):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.LR)
    scheduler = scheduler or build_lr_scheduler(optimizer, cfg)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates, scheduler, optimizer


def _optim(name, epochs, lr, warmup, kind, stepsize, gamma):
    cfg = get_cfg_default().OPTIM
    cfg.LR_SCHEDULER, cfg.MAX_EPOCH, cfg.LR, cfg.WARMUP_EPOCH, cfg.WARMUP_TYPE = name, epochs, lr, warmup, kind
    cfg.STEPSIZE, cfg.GAMMA = (stepsize, 2 * stepsize), gamma
    cfg.WARMUP_CONS_LR, cfg.WARMUP_MIN_LR = lr / 3, lr / 5
    return cfg


SCHEDULES = st.builds(
    _optim,
    st.sampled_from(["cosine", "single_step", "multi_step"]),
    st.integers(2, 30),
    st.floats(1e-5, 1.0),
    st.integers(0, 4),
    st.sampled_from(["constant", "linear"]),
    st.integers(1, 12),
    st.floats(0.1, 1.0),
)


@given(SCHEDULES)
@settings(deadline=None, max_examples=50)
def test_learning_rates_follow_their_closed_form(cfg):
    rates, _, _ = _rates(cfg, cfg.MAX_EPOCH - 1)
    for epoch, rate in enumerate(rates):
        own = epoch - cfg.WARMUP_EPOCH
        if own < 0 and cfg.WARMUP_TYPE == "constant":
            expected = cfg.LR / 3
        elif own < 0:
            expected = cfg.LR / 5 if epoch == 0 else cfg.LR * epoch / cfg.WARMUP_EPOCH
        elif cfg.LR_SCHEDULER == "cosine":
            expected = cfg.LR / 2 * (1 + math.cos(math.pi * own / cfg.MAX_EPOCH))
        elif cfg.LR_SCHEDULER == "single_step":
            expected = cfg.LR * cfg.GAMMA ** (own // cfg.STEPSIZE[-1])
        else:
            expected = cfg.LR * cfg.GAMMA ** sum(milestone <= own for milestone in cfg.STEPSIZE)
        assert rate == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(SCHEDULES, st.integers(0, 10))
@settings(deadline=None, max_examples=50)
def test_a_resumed_schedule_goes_on_as_if_uninterrupted(cfg, stop):
    whole, _, _ = _rates(cfg, stop + 5)
    _, scheduler, optimizer = _rates(cfg, stop)
    state = {"schedule": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    fresh = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.LR)
    resumed = build_lr_scheduler(fresh, cfg)
    fresh.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["schedule"])
    rates = [fresh.param_groups[0]["lr"]]
    for _ in range(5):
        fresh.step()
        resumed.step()
        rates.append(fresh.param_groups[0]["lr"])
    assert rates == whole[stop:]


def _result(folder, method, seed, lr, accuracy):
    config = {"OUTPUT_DIR": str(folder), "SEED": seed, "OPTIM": {"LR": lr}, "TRAINER": {"NAME": method}}
    result = {
        "schema_version": 1,
        "trainer": method,
        "dataset": "D",
        "seed": seed,
        "shots": 16,
        "subsample": "all",
        "noise": None,
        "evaluated": None,
        "config_name": "rn50",
        "accuracy": accuracy,
        "macro_f1": accuracy,
        "history": [],
        "config": config,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))


RUNS = st.lists(
    st.tuples(st.sampled_from(["CoOp", "CoOpDSPT"]), st.integers(1, 3), st.sampled_from([0.1, 0.2])),
    min_size=1,
    max_size=8,
)


@given(RUNS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_merging_counts_every_experiment_once_in_any_order(tmp_path_factory, runs, random):
    """Copies of one experiment are one; experiments that differ by a setting never share a name and a seed."""
    root = tmp_path_factory.mktemp("results")
    for index, (method, seed, lr) in enumerate(runs):
        _result(root / str(index % 3) / f"lr{lr}" / f"run{index}", method, seed, lr, accuracy=100 * lr + seed)
    roots = list(root.iterdir())
    loaded = load(roots)
    assert loaded.lines == []
    found = loaded.frame
    assert len(found) == len(set(runs)) == len(found.drop_duplicates(["row", *SETTING, "seed"]))
    for row in found.itertuples():
        assert (row.trainer, row.seed, round((row.accuracy - row.seed) / 100, 6)) in set(runs)
    random.shuffle(roots)
    shuffled = load(roots + roots).frame
    # Which of several copies names the folder may depend on the order; what is counted may not.
    counted = ["trainer", "seed", "accuracy"]
    assert sorted(shuffled[counted].itertuples(index=False)) == sorted(found[counted].itertuples(index=False))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.1, 0.2]), st.integers(1, 2)), max_size=8, unique=True)
)
@settings(deadline=None, max_examples=40)
def test_rows_are_told_apart_only_where_they_must_be(keys):
    rows = [
        {**to_row(fields_of(1.0, trainer=method, seed=seed, lr=rate)), "folder": Path(f"/r/{method}/{rate}/{seed}")}
        for method, rate, seed in keys
    ]
    named = frame_of(rows)
    assert bool(named["double_of"].isna().all()) and len(named.drop_duplicates(["row", "seed"])) == len(rows)
    rates = {method: {rate for name, rate, _ in keys if name == method} for method in "ab"}
    for (method, rate, _), before, after in zip(keys, rows, named.itertuples(), strict=True):
        assert after.row == (f"{method} [LR={rate}]" if len(rates[method]) > 1 else method)
        same = ("trainer", "dataset", "seed", "shots", "noise", "accuracy", "folder", "facts")
        assert all(getattr(after, name) == before[name] for name in same)


@given(st.sampled_from(["sym", "asym"]), st.floats(0.01, 0.99), st.sampled_from(["relabel", "swap"]))
def test_noise_labels_name_what_is_not_usual(kind, rate, family):
    label = noise_label({"type": kind, "rate": rate, "family": family})
    told = label.removesuffix(" (swap)")
    assert (told != label) == (family == "swap") and noise_label({"type": kind, "rate": rate}) == told
    assert told.split() == [kind, told.split()[1]] and float(told.split()[1]) == rate  # two rates are two columns
    assert noise_label(None) == noise_label({}) == "clean"
