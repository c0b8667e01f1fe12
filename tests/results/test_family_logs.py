"""Logs of other repositories: applied noise counts, not configured noise."""

import json

import pytest

from dspt_atlas.report import table as reports
from dspt_atlas.results.read import load
from support.results import EVALUATED, TRAINED, runs, write_log, write_result

NLPROMPT = "  NOISE_LABEL: True\n  NOISE_TYPE: sym\n  NOISE_RATE: 0.5\n"
OURS = "  NOISE:\n    FAMILY: relabel\n    TYPE: asym\n    RATE: 0.25\n    PER_CLASS: False\n    FILE: ''\n"


def add_keys(folder, keys, line=""):
    """Add lines below NUM_SHOTS of a log's configuration, and a line after it."""
    path = folder / "log.txt"
    text = path.read_text().replace("  NUM_SHOTS: 16\n", f"  NUM_SHOTS: 16\n{keys}")
    path.write_text(text.replace("PyTorch version", f"{line}\nPyTorch version"))


def only(*roots):
    (record,), problems = runs(roots), load(roots).lines
    assert problems == []
    return record


def test_configured_noise_that_nobody_saw_applied_is_not_verified(tmp_path):
    write_log(tmp_path / "a", TRAINED)
    add_keys(tmp_path / "a", NLPROMPT)
    record = only(tmp_path)
    assert (record.noise, record.row) == ("sym 0.5", "CoOp [noise as configured, not verified]")
    assert "noise as configured, not verified" in reports.report([tmp_path])[0]


def test_configured_and_applied_noise_are_two_rows(tmp_path):
    for name in ("a", "b"):
        write_log(tmp_path / name, TRAINED, seed=1 + (name == "b"))
        add_keys(tmp_path / name, NLPROMPT)
    kept = {"family": "relabel", "type": "sym", "rate": 0.5, "per_class": False, "seed": 2, "samples": []}
    (tmp_path / "b" / "noise.json").write_text(json.dumps(kept))
    assert {record.folder.name: (record.noise, record.row) for record in runs([tmp_path])} == {
        "a": ("sym 0.5", "CoOp [noise as configured, not verified]"),
        "b": ("sym 0.5", "CoOp"),
    }


@pytest.mark.parametrize("keys", ["", NLPROMPT.replace("True", "False"), OURS.replace("asym", "none")])
def test_a_log_without_noise_is_clean(tmp_path, keys):
    write_log(tmp_path / "a", TRAINED)
    add_keys(tmp_path / "a", keys)
    assert (only(tmp_path).noise, only(tmp_path).row) == ("clean", "CoOp")


@pytest.mark.parametrize("name", ["NoisyCaltech101", "Caltech101"])
def test_our_own_noise_keys_in_a_fork_s_log_are_read(tmp_path, name):
    write_log(tmp_path / "a", TRAINED, dataset=name)
    add_keys(tmp_path / "a", OURS)
    record = only(tmp_path)
    assert (record.dataset, record.noise, record.noise_type, record.noise_rate) == (
        "Caltech101",
        "asym 0.25",
        "asym",
        0.25,
    )
    assert "not verified" in record.row


def test_what_our_data_sets_print_is_what_was_applied(tmp_path):
    write_log(tmp_path / "a", TRAINED, dataset="NoisyCaltech101")
    line = "Label noise: sym 0.5 (swap), seed 1: 24 of 32 training labels are wrong"
    add_keys(tmp_path / "a", OURS, line)
    record = only(tmp_path)
    assert (record.noise, record.row) == ("sym 0.5 (swap)", "CoOp")


def test_noisy_variants_and_their_data_set_are_one_data_set(tmp_path):
    write_log(tmp_path / "clean", TRAINED, dataset="Caltech101")
    write_log(tmp_path / "noisy", TRAINED, dataset="NoisyCaltech101")
    add_keys(tmp_path / "noisy", OURS, "Label noise: asym 0.25 (relabel), seed 1: 8 of 32 training labels are wrong")
    text = reports.report([tmp_path])[0]
    assert "Caltech101, 16 shots, by training labels" in text and "Noisy" not in text
    assert {record.noise for record in runs([tmp_path])} == {"clean", "asym 0.25"}


def test_a_test_whose_folder_does_not_tell_the_training_has_an_unknown_origin(tmp_path):
    write_log(tmp_path / "own", TRAINED)
    write_log(tmp_path / "moved", EVALUATED, seed=2, model_dir="/tmp/my_model")
    assert {record.row for record in runs([tmp_path])} == {"CoOp", "CoOp [origin unknown]"}


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("output/caltech101/CoOp/rn50_16shots/seed1", None),
        ("output/oxford_pets/CoOp/rn50_16shots/seed1", "OxfordPets"),
        ("output/dtd/CoOp/rn50_16shots/seed1", "DescribableTextures"),
        ("output/my_data/CoOp/rn50_16shots/seed1", "my_data"),
    ],
)
def test_the_source_of_a_tested_model_is_the_data_set_of_its_folder(tmp_path, place, source):
    write_log(tmp_path / "a", EVALUATED, model_dir=place)
    assert (only(tmp_path).source, only(tmp_path).row) == (source, "CoOp")


def test_a_log_of_another_code_and_a_result_of_ours_are_two_rows(tmp_path):
    write_log(tmp_path / "theirs", TRAINED, dataset="Emoji")
    write_result(tmp_path / "ours", 80.0, seed=2, config_name="vit_b16_ep50")
    assert {record.row for record in runs([tmp_path])} == {"CoOp [from log.txt]", "CoOp [from result.json]"}
