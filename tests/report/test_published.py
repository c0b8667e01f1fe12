"""Other people's figures next to ours: marked, complete, never mistaken for ours."""

import json
import shutil
import statistics

import yaml

from dspt_atlas.report import table as reports
from dspt_atlas.results.published import PUBLISHED
from support.runs import result_of


def test_they_stand_beside_ours_and_are_marked(tiny_noisy_run, tmp_path):
    result = result_of(tiny_noisy_run)
    result.update(dataset="Caltech101", shots=16, accuracy=12.5)
    shutil.copy(tiny_noisy_run / "config.yaml", tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(result))
    text, _ = reports.report([tmp_path], published=True)
    table = text.split("Caltech101, 16 shots, by training labels")[1].split("\n\n")[1]
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "12.5 ± 0.0 (1/1)" in lines["CoOp"]
    assert "89.9" in lines["† NLPrompt (RN50, inferred)"] and "±" not in lines["† NLPrompt (RN50, inferred)"]
    assert "†" in text.splitlines()[-1]
    assert "†" not in reports.report([tmp_path])[0]
    entries = json.loads(reports.report([tmp_path], form="json", published=True)[0])
    theirs = [entry for entry in entries if entry["method"].startswith("†")]
    assert theirs and all(entry["seeds"] == [] and entry["missing_seeds"] == [] for entry in theirs)


def test_every_entry_names_source_and_backbone_and_is_consistent():
    for entry in yaml.safe_load(PUBLISHED.read_text()):
        assert entry["source"] and entry["backbone"]
        for key, figures in entry["rows"]:
            assert len(key) == len(entry["index"]) and all(0 < value < 100 for value in figures.values())
            if "H" in figures:
                mean = statistics.harmonic_mean([figures["base"], figures["new"]])
                assert abs(mean - figures["H"]) < 0.02
