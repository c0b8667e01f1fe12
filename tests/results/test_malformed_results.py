"""Files that a run cannot have written: they are left out, named, and do not stop tables, figures, page or --watch."""

import json
import os
import shutil
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspt_atlas.report import table as reports
from dspt_atlas.report.figures import draw_figures
from dspt_atlas.report.page import command
from dspt_atlas.report.page.page import render_page
from dspt_atlas.results.read import load
from dspt_atlas.results.render import render
from dspt_atlas.results.tables import build_tables, wanted_seeds
from dspt_atlas.trainers.measures import MEASURES
from support.results import TRAINED, runs, write_log, write_result
from support.runs import result_of

SYM = {
    "family": "relabel",
    "type": "sym",
    "rate": 0.5,
    "realised_rate": 0.48,
    "seed": 1,
    "per_class": False,
    "file": "",
}
IDENTITY = {
    "data": "a" * 64, "backbone": "b" * 64, "noise": None, "init_weights": None,
    "revisions": {"learner": 1, "method": 1, "backbone": 1}, "drawn_seed": None,
}  # fmt: skip
HISTORY = [
    {"epoch": epoch, "train_loss": 1.0, "test_accuracy": 40.0, "right_accuracy": 50.0, "wrong_memorised": 5.0,
     "gradient": {"CE": {"right": 1.0, "wrong": 2.0, "wrong_share": 0.5}}}
    for epoch in (1, 2)
]  # fmt: skip
EVALUATED = {
    "model_dir": "x", "epoch": None, "tested_epoch": 2, "is_final": True, "checkpoint": "c" * 64,
    "trained_on": {
        "dataset": "Emoji", "subsample": "base", "shots": 16, "noise": SYM, "seed": 1, "identity": IDENTITY,
        "config": {"OPTIM.LR": 0.2},
    },
}  # fmt: skip
EXTRAS = {
    "identity": IDENTITY, "history": HISTORY, "precision": "fp32", "split": "test", "num_classes": 10, "seconds": 1.0,
    "per_class_accuracy": {"ant": 50.0}, "versions": {"torch": "2"}, "host": {"cores": 2}, "commit": "abc",
    "peak_memory_bytes": 2**30,
}  # fmt: skip


def nested(depth):
    return "[" * depth + "]" * depth


BROKEN = {
    "seed_list": {"seed": [1, 2]},
    "shots_list": {"shots": [16]},
    "shots_text": {"shots": "16"},
    "seed_true": {"seed": True},
    "seed_float": {"seed": 1.5},
    "seed_null": {"seed": None},
    "huge_accuracy": {"accuracy": 10**309},
    "huge_rate": {"noise": {"type": "sym", "rate": 10**309}},
    "accuracy_text": {"accuracy": "80"},
    "accuracy_above": {"accuracy": 180.0},
    "accuracy_nan": {"accuracy": float("nan")},
    "dataset_null": {"dataset": None},
    "dataset_surrogate": {"dataset": "\ud800"},
    "subsample_other": {"subsample": "half"},
    "config_list": {"config": [1]},
    "config_null": {"config": None},
    "noise_text": {"noise": "sym"},
    "noise_words": {"noise": {"type": "sym", "rate": "half"}},
    "history_text": {"history": ["one"]},
    "history_number": {"history": 3},
    "evaluated_list": {"evaluated": [1]},
    "trained_on_text": {"evaluated": {"model_dir": "x", "epoch": None, "trained_on": "Emoji"}},
    "identity_list": {"identity": [1]},
    "digest_number": {"identity": {"data": 3}},
    "many_classes": {"num_classes": 10**12},
}


def damage(tmp_path):
    """Write a good run and one of each kind that is broken; return the names of the broken ones."""
    write_result(tmp_path / "good", 80.0, noise=SYM, **EXTRAS)
    good = result_of(tmp_path / "good")
    for name, fields in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(good | fields))
    for name, text in (
        ("deep", nested(10**5)),
        ("null", "null"),
        ("number", "1" * 5000),
        ("text", '"a"'),
        ("empty", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "result.json").write_bytes(b"\xff\xfe{")
    return {*BROKEN, "deep", "null", "number", "text", "empty", "bytes"}


def test_each_broken_result_is_left_out_and_named(tmp_path):
    broken = damage(tmp_path)
    records, problems = runs([tmp_path]), load([tmp_path]).lines
    assert [record.folder.name for record in records] == ["good"]
    assert len(problems) == len(broken)
    for name in broken:
        assert sum(f"{tmp_path / name}{os.sep}" in problem for problem in problems) == 1, name
    text, named = reports.report([tmp_path])
    assert "80.0" in text and len(named) == len(broken)


@pytest.mark.parametrize("depth", [100, 800, 900, 950, 980, 5000])
@pytest.mark.parametrize("name", ["config", "evaluated", "noise", "host", "per_class_accuracy"])
def test_deep_nesting_anywhere_stops_nothing(tmp_path, depth, name):
    write_result(tmp_path / "good", 80.0, noise=SYM, **EXTRAS)
    result = result_of(tmp_path / "good") | {"seed": 2, name: "DEEP"}
    (tmp_path / "deep").mkdir()
    text = json.dumps(result).replace('"DEEP"', '{"A": ' * depth + "1" + "}" * depth)
    (tmp_path / "deep" / "result.json").write_text(text)
    records, problems = runs([tmp_path]), load([tmp_path]).lines
    assert {record.folder.name for record in records} >= {"good"}
    assert len(records) + len(problems) == 2
    assert '"deep"' in render_page([tmp_path], figures=False)[0].decode()


def test_the_page_and_figures_come_all_the_same(tmp_path, capsys):
    broken = damage(tmp_path / "runs")
    assert command.main([str(tmp_path / "runs"), "--no-figures"]) == 0
    said = capsys.readouterr().out
    assert "1 done" in said and f"{len(broken)} unreadable" in said
    assert draw_figures([tmp_path / "runs"], tmp_path / "out", ("memorisation", "gradient_epochs"))


def test_watch_goes_on_where_a_file_is_broken(tmp_path):
    write_result(tmp_path / "runs" / "good", 80.0)
    rounds = []

    def render(refresh=0.0):
        rounds.append(refresh)
        if len(rounds) == 2:
            damage(tmp_path / "runs" / "more")
        if len(rounds) == 3:
            raise command.Interrupted(signal.SIGINT)
        return render_page([tmp_path / "runs"], figures=False, refresh=refresh)

    command.watch(render, tmp_path / "page.html", 1)
    assert len(rounds) == 4 and "huge_accuracy" in (tmp_path / "page.html").read_text()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def places(tree, path=()):
    """Yield the paths of all values of a tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(tree, path, value, removes):
    """Return a tree with another value at a path, or without it."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if removes and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(tree[path[0]], path[1:], value, removes)
    return copy


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The content of a test's result.json with all fields."""
    folder = tmp_path_factory.mktemp("valid") / "run"
    write_result(folder, 50.0, subsample="new", noise=SYM, evaluated=EVALUATED, **EXTRAS)
    return result_of(folder)


def check_mutant(folder, mutant, with_figures=False):
    """Assert that a mutant next to a good run is counted or named, and that everything is still made."""
    shutil.rmtree(folder, ignore_errors=True)
    write_result(folder / "good", 80.0, noise=SYM, **EXTRAS)
    (folder / "mutant").mkdir()
    (folder / "mutant" / "result.json").write_text(json.dumps(mutant))
    records, problems = load([folder]).frame, load([folder]).lines
    counted = {place.name for place in records["folder"]}
    assert "good" in counted
    assert ("mutant" in counted) != any(str(folder / "mutant") in problem for problem in problems)
    for measure in ("accuracy", "macro_f1"):
        for form in ("github", "csv", "json", "latex"):
            render(build_tables(records, MEASURES[measure]), wanted_seeds(records), form).encode()
    page = render_page([folder], figures=with_figures)[0].decode()
    assert '"good"' in page and '"mutant"' in page
    if with_figures:
        assert "<figure" in page


MUTATIONS = st.tuples(st.randoms(use_true_random=False), json_values, st.booleans())


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MUTATIONS, min_size=1, max_size=3))
def test_any_change_of_a_result_is_counted_or_named(valid, tmp_path, mutations):
    mutant = valid
    for random, value, removes in mutations:
        mutant = changed(mutant, random.choice(list(places(mutant))), value, removes)
    check_mutant(tmp_path / "tree", mutant)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MUTATIONS, st.sampled_from(["history", "noise", "num_classes", "evaluated"]))
def test_any_change_of_what_figures_show_still_gives_figures(valid, tmp_path, mutation, name):
    random, value, removes = mutation
    result = valid | {"evaluated": None, "subsample": "all"}
    below = random.choice([path for path in places(result) if path[:1] == (name,)])
    check_mutant(tmp_path / "tree", changed(result, below, value, removes), with_figures=True)


@pytest.mark.parametrize(
    "broken",
    [
        ("NUM_SHOTS: 16", ""),
        ("SEED: 1", ""),
        ("SEED: 1", "SEED: one"),
        ("NUM_SHOTS: 16", "NUM_SHOTS: [16]"),
        ("NUM_SHOTS: 16", "NUM_SHOTS: 16\n  NOISE_LABEL: True\n  NOISE_RATE: half"),
        ("NUM_SHOTS: 16", "NUM_SHOTS: 16\n  NOISE:\n    TYPE: sym\n    RATE: much"),
        ("NUM_SHOTS: 16", "NUM_SHOTS: 16\n  NOISE: sym"),
        ("* accuracy: 93.3%", "* accuracy: e%"),
        ("* macro_f1: 90.1%", "* macro_f1: .%"),
        ("* accuracy: 93.3%", "* accuracy: 933%"),
        ("NAME: Caltech101", "NAME: [Caltech101]"),
        ("SUBSAMPLE_CLASSES: all", "SUBSAMPLE_CLASSES: some"),
    ],
)
def test_a_broken_family_log_is_left_out_and_named(tmp_path, broken):
    write_log(tmp_path / "good", TRAINED, seed=2)
    write_log(tmp_path / "broken", TRAINED)
    log = tmp_path / "broken" / "log.txt"
    assert broken[0] in log.read_text()
    log.write_text(log.read_text().replace(*broken))
    records, (problem,) = runs([tmp_path]), load([tmp_path]).lines
    assert [record.folder.name for record in records] == ["good"] and str(tmp_path / "broken") in problem
    page = render_page([tmp_path], figures=False)[0].decode()
    assert "broken" in page


@pytest.mark.parametrize("name", ["gradient_summary.csv", "gradient_profile.csv"])
def test_a_broken_gradient_profile_costs_its_figure_only(tmp_path, name):
    write_result(tmp_path / "run", 50.0, noise=SYM, **EXTRAS)
    (tmp_path / "run" / name).write_text("loss,epoch,index,wrong,p_y\nCE,one,1,1,0.5\n")
    page = render_page([tmp_path])[0].decode()
    assert "memorisation: Emoji" in page and str(tmp_path / "run" / name) in page


def test_links_to_run_folders_are_followed_once_each(tmp_path):
    write_result(tmp_path / "disk" / "a" / "seed1", 60.0, seed=1)
    write_result(tmp_path / "disk" / "a" / "seed2", 62.0, seed=2)
    write_result(tmp_path / "output" / "seed3", 64.0, seed=3)
    (tmp_path / "output" / "linked").symlink_to(tmp_path / "disk" / "a")
    (tmp_path / "output" / "again").symlink_to(tmp_path / "disk")
    (tmp_path / "output" / "seed3" / "parent").symlink_to(tmp_path / "output")
    (tmp_path / "disk" / "a" / "back").symlink_to(tmp_path / "output")
    (tmp_path / "output" / "dead").symlink_to(tmp_path / "nowhere")
    records, problems = runs([tmp_path / "output"]), load([tmp_path / "output"]).lines
    assert sorted(record.seed for record in records) == [1, 2, 3] and problems == []
    folders = {record.folder for record in records}
    assert tmp_path / "output" / "seed3" in folders and len(folders) == 3
    page = render_page([tmp_path / "output"], figures=False)[1]
    assert "3 done" in page
    assert len(runs([tmp_path / "output", tmp_path / "disk"])) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    write_result(tmp_path / "a" / "run", 60.0)
    write_result(tmp_path / "b" / "run", 60.0, seed=2)
    (tmp_path / "b").chmod(0)
    try:
        loaded = load([tmp_path])
    finally:
        (tmp_path / "b").chmod(0o700)
    (problem,) = loaded.problems
    assert len(loaded.results) == 1 and problem.is_relative_to(tmp_path / "b")
