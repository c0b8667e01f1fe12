"""Other people's figures next to ours: marked, complete, never mistaken for ours."""

import json
import shutil
import statistics

import pytest
import yaml

from dspt_atlas.report import table as reports
from dspt_atlas.results.published import MEAN, PUBLISHED, published_rows
from support.results import write_result
from support.runs import result_of


def test_they_stand_beside_ours_and_are_marked(tiny_noisy_run, tmp_path):
    result = result_of(tiny_noisy_run)
    result.update(dataset="Caltech101", shots=16, accuracy=12.5)
    shutil.copy(tiny_noisy_run / "config.yaml", tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(result))
    text, _ = reports.report([tmp_path], published=True)
    table = text.split("Caltech101, 16 shots, by training labels")[1].split("\n\n")[1]
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "12.5" in lines["CoOp"]
    assert "89.9" in lines["† NLPrompt (RN50, inferred)"] and "±" not in lines["† NLPrompt (RN50, inferred)"]
    assert "†" in text.splitlines()[-1]
    assert "†" not in reports.report([tmp_path])[0]
    entries = json.loads(reports.report([tmp_path], form="json", published=True)[0])
    theirs = [entry for entry in entries if entry["method"].startswith("†")]
    assert theirs and all(entry["seeds"] == [] and entry["missing_seeds"] == [] for entry in theirs)


def test_every_entry_names_source_and_backbone_and_is_consistent():
    seen = set()
    for entry in yaml.safe_load(PUBLISHED.read_text()):
        assert entry["source"] and entry["backbone"]
        found = list(published_rows(entry))
        assert found
        for key, figures in found:
            assert len(key) == len(entry["index"]) and all(0 < value < 100 for value in figures.values())
            assert (entry["title"], entry["backbone"], *key) not in seen, "one source would hide another"
            seen.add((entry["title"], entry["backbone"], *key))
            if "H" in figures:
                mean = statistics.harmonic_mean([figures["base"], figures["new"]])
                assert abs(mean - figures["H"]) < 0.02
        for method, figures in entry.get("base_new", {}).items():
            for part in {"base", "new"} & figures.keys():
                assert statistics.fmean(figures[part]) == pytest.approx(figures[MEAN][part], abs=0.021), method
        for key, figures in found:
            if "mean of 10 targets" in figures:
                targets = [value for name, value in figures.items() if name not in ("ImageNet", "mean of 10 targets")]
                assert statistics.fmean(targets) == pytest.approx(figures["mean of 10 targets"], abs=0.021), key


def test_a_table_takes_the_published_figures_of_its_own_data_sets_and_the_means(tmp_path):
    for part in ("base", "new"):
        write_result(tmp_path / part, 60.0, dataset="OxfordPets", shots=16, subsample=part)
    entries = json.loads(reports.report([tmp_path], form="json", published=True)[0])
    theirs = [entry for entry in entries if entry["table"] == "Base to new, 16 shots" and "†" in entry["method"]]
    assert {entry["data set"] for entry in theirs} == {"OxfordPets", MEAN}
    figures = {(e["data set"], e["method"], e["column"]): e["mean"] for e in theirs}
    assert figures["OxfordPets", "† PromptSRC (ViT-B/16)", "new"] == 97.30
    assert figures["OxfordPets", "† PromptSRC, rerun by DePT (ViT-B/16)", "new"] == 97.23
    assert figures[MEAN, "† TCP (ViT-B/16)", "H"] == 79.51
