"""The benchmarks: both sides of every case compute the same, and the command writes what it promises."""

import json
import math
import subprocess
import sys

import pytest
import reference
import steps
import torch

from dspt_atlas.trainers.clip.encoders import ImageEncoder, SharedPrefixTextEncoder
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from support.paths import BENCHMARKS

pytestmark = pytest.mark.runs


@pytest.mark.parametrize(
    "case",
    ["text", "coop", "cocoop", "maple", "kgcoop", "prograd", "tcp", "ivlp", "vpt", "vptimages", "promptsrc"]
    + ["deptcoop", "deptkgcoop", "deptmaple", "evaluation"],
)
def test_reference_and_ours_compute_the_same_by_different_code(case, monkeypatch):
    problem = steps.Problem(classes=7, quick=True, batch=3, class_chunk=3)
    step, result = getattr(steps, case)("reference", problem), getattr(steps, case)("ours", problem)()
    with monkeypatch.context() as patch:
        for encoder in (PromptedCLIP, SharedPrefixTextEncoder, ImageEncoder):
            patch.setattr(encoder, "forward", None)  # the reference does not call what it is compared with
        expected = step()
    assert (result - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("case", ["text", "maple", "ivlp"])
def test_the_reference_in_parts_computes_the_same(case, monkeypatch):
    problem = steps.Problem(classes=7, quick=True, batch=2)
    whole = getattr(steps, case)("reference", problem)
    monkeypatch.setattr(steps, "number_of_parts", lambda problem: 3)
    parts = getattr(steps, case)("reference", problem)
    assert (whole.parts, parts.parts) == (1, 3)
    expected = whole()
    assert (parts() - expected).abs().max() < 1e-5 * expected.abs().max()


def test_needed_operations_of_one_class_in_one_layer_are_counted_by_hand():
    # 2 prefix and 3 own tokens, width 4, one layer: keys and values of 5 tokens (160 multiply-adds), query, projection
    # and MLP of the end token (160), its scores and values over 5 keys (40); all again backward except the projections
    # of the 3 own tokens (144)
    assert steps.needed_operations([3], 2, 4, 1) == 2 * (2 * (160 + 160 + 40) - 144)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json_and_a_picture(tmp_path):
    output, picture = tmp_path / "figures.json", tmp_path / "scaling.png"
    command = [
        sys.executable,
        BENCHMARKS / "run.py",
        "--quick",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--case",
        "text-100",
    ]
    done = subprocess.run(
        [*command, "--case", "scaling", "--json", output, "--plot", picture],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    (case,) = figures["cases"]
    assert case["name"] in done.stdout and case["quick"] and figures["scaling_where"]["quick"]
    assert case["ratio"] == pytest.approx(case["reference_seconds"] / case["seconds"])
    assert case["required"] == 12 and case["relative_difference"] < 1e-5
    assert all(math.isfinite(case[key]) for key in ("reference_peak_bytes", "peak_bytes"))
    assert {record["side"] for record in figures["scaling"]} == {"reference", "ours"}
    assert picture.stat().st_size > 10_000


def test_an_unknown_case_is_refused_with_the_known_ones():
    command = [sys.executable, BENCHMARKS / "run.py", "--case", "nothing"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and "maple-1000" in done.stderr and "Traceback" not in done.stderr


def test_the_naive_text_encoder_takes_the_place_of_ours_in_train_py():
    from dspt_atlas.trainers.clip.encoders import SharedPrefixTextEncoder
    from dspt_atlas.trainers.learners.coop import CoOpPromptLearner

    torch.manual_seed(0)
    model = reference.random_clip()
    learner = CoOpPromptLearner(model, ["dog", "owl"], 5)
    ours, naive = (
        kind(model, learner.sequences, 0)(learner(), ())
        for kind in (SharedPrefixTextEncoder, reference.NaiveTextEncoder)
    )
    assert torch.allclose(ours, naive, rtol=1e-4, atol=1e-5)
