"""Tables for a paper: captions that say what a cell is, LaTeX that compiles, the order of rows, the backbone's name."""

import re
import shutil
import subprocess

import pytest

from dspt_atlas.report import table as reports
from dspt_atlas.report.page.page import render_page
from dspt_atlas.results.order import LEARNERS, METHODS
from dspt_atlas.trainers import registry
from dspt_atlas.trainers.measures import MEASURES, Measure
from support.results import SYM, TRAINED, entries, trained_on, with_backbone, write_log, write_result


def write_runs(folder, **by_trainer):
    """Write a result per seed, {trainer: [accuracy of seed 1, of seed 2, ...]}."""
    for trainer, accuracies in by_trainer.items():
        for seed, accuracy in enumerate(accuracies, 1):
            write_result(folder / f"{trainer}{seed}", accuracy, trainer=trainer, seed=seed)


def latex_of(*folders, **options):
    return reports.report(folders, form="latex", **options)[0]


def latex_rows(text):
    return {line.split(" & ")[0]: line for line in text.splitlines() if line.endswith(r"\\")}


def test_the_best_is_bold_the_second_underlined_and_equal_ones_alike(tmp_path):
    write_runs(tmp_path, CoOp=[70.0, 72.0], CoOpDSPT=[60.01, 62.01], CoOpGCE=[60.0, 62.0], MaPLe=[50.0, 52.0])
    rows = latex_rows(latex_of(tmp_path))
    assert r"\textbf{71.0}{\scriptsize$\pm$1.0}" in rows["CoOp"]
    assert all(r"\underline{61.0}" in rows[name] for name in ("CoOpDSPT", "CoOpGCE"))
    assert "textbf" not in rows["MaPLe"] and "underline" not in rows["MaPLe"]


def test_of_a_measure_that_should_be_low_the_lowest_is_the_best(tmp_path, monkeypatch):
    monkeypatch.setitem(MEASURES, "ece", Measure("ece", "ECE", higher_is_better=False))
    for trainer, value in (("CoOp", 9.0), ("CoOpDSPT", 4.0)):
        write_result(tmp_path / trainer, 50.0, trainer=trainer, ece=value)
    rows = latex_rows(latex_of(tmp_path, measures=["ece"]))
    assert r"\textbf{4.0}" in rows["CoOpDSPT"] and r"\underline{9.0}" in rows["CoOp"]


def test_the_best_is_sought_in_each_data_set_and_never_among_published_figures(tmp_path):
    for dataset, trainer, accuracy in (("OxfordPets", "CoOp", 9.0), ("OxfordPets", "MaPLe", 8.0), ("B", "CoOp", 1.0)):
        for part in ("base", "new"):
            folder = tmp_path / f"{dataset}{trainer}{part}"
            write_result(folder, accuracy, trainer=trainer, dataset=dataset, subsample=part)
    text = latex_of(tmp_path, published=True)
    assert text.count(r"\textbf{9.0}") == 3 and r"\textbf{1.0}" not in text  # base, new and H
    assert not [line for line in text.splitlines() if "dagger" in line and "textbf" in line]


def test_names_are_escaped_and_captions_and_labels_are_there(tmp_path):
    write_result(tmp_path / "a", 50.0, trainer="Own_100%", dataset="a_b & {c} #1 $x$ ~ ^ \\ <d>")
    text = latex_of(tmp_path)
    assert r"Own\_100\%" in text and r"a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{}" in text
    (label,) = re.findall(r"\\label\{(.*)\}", text)
    assert re.fullmatch(r"tab:[a-z0-9-]+", label) and text.count(r"\caption{") == 1


def test_a_document_of_all_kinds_of_tables_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no LaTeX here: apt-get install texlive-latex-base texlive-latex-recommended")
    write_runs(tmp_path / "tree", CoOp=[70.0, 72.0], CoOpDSPT=[60.0, 62.0], **{"[own]*": [50.0, 51.0]})
    for part in ("base", "new"):
        for dataset in ("OxfordPets", "a_b & {c} #1 $x$ ~ ^ \\ <d>"):
            write_result(tmp_path / "tree" / dataset.replace("/", "") / part, 60.0, dataset=dataset, subsample=part)
    write_result(tmp_path / "tree" / "noisy", 40.0, noise=SYM)
    write_result(tmp_path / "tree" / "moved", 30.0, dataset="EmojiInk", evaluated=trained_on("Emoji"))
    text = latex_of(tmp_path / "tree", baseline="CoOp", published=True, missing=True)
    document = "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\n\\end{document}\n"
    (tmp_path / "paper.tex").write_text(document % text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert text.count(r"\begin{tabular}") > 4


def test_rows_have_the_familys_order_zero_shot_first_and_ours_last(tmp_path):
    expected = [
        "ZeroshotCLIP",
        "CoOp",
        "CoOpLS",
        "CoOpGCE",
        "CoOpATLaS (ls)",
        "CoOpDSPT",
        "CoOpFocal",
        "CoCoOp",
        "MaPLe",
    ]
    for name in sorted(expected):
        write_result(tmp_path / name, 50.0, trainer=name.removesuffix(" (ls)"))
    assert [key[1] for key in entries(tmp_path)] == expected


def test_the_order_has_every_learner_and_every_method():
    known = [name for name in registry.LEARNERS if name in LEARNERS]
    assert {*known} == {*LEARNERS} and set(registry.METHODS) < set(METHODS)


def test_every_table_and_page_names_the_backbone_and_the_rows_that_have_another(tmp_path):
    for trainer, name in (("CoOp", "EmojiRN"), ("CoOpDSPT", "EmojiRN"), ("MaPLe", "/weights/vit_b16.pt")):
        write_result(tmp_path / trainer, 50.0, trainer=trainer)
        with_backbone(tmp_path / trainer, name)
    texts = [reports.report([tmp_path], form=form)[0] for form in ("github", "latex")]
    texts.append(render_page([tmp_path], figures=False)[0].decode())
    assert all("EmojiRN" in text and re.search(r"vit(\\?_)b16\.pt in MaPLe\.", text) for text in texts)
    named = {key[1]: entry["backbone"] for key, entry in entries(tmp_path).items()}
    assert named == {"CoOp": ["EmojiRN"], "CoOpDSPT": ["EmojiRN"], "MaPLe": ["vit_b16.pt"]}


def test_older_results_and_logs_without_a_backbone_are_read(tmp_path):
    write_result(tmp_path / "old", 50.0)
    write_log(tmp_path / "log", TRAINED)
    assert all(entry["backbone"] == [] for entry in entries(tmp_path).values())


def test_one_seed_has_no_spread_and_a_cell_says_its_seeds_only_if_they_are_fewer(tmp_path):
    write_runs(tmp_path / "one", CoOp=[50.0])
    assert "±" not in reports.report([tmp_path / "one"])[0]
    write_runs(tmp_path / "more", CoOp=[50.0, 52.0, 54.0], MaPLe=[50.0, 52.0])
    text = reports.report([tmp_path / "more"])[0]
    assert "3 seeds" in text and "| 52.0 ± 1.6 " in text and "| 51.0 ± 1.0 (2 seeds) |" in text


def test_seeds_that_are_missing_are_listed_only_when_asked_for(tmp_path, capsys):
    write_runs(tmp_path, CoOp=[50.0, 52.0], MaPLe=[50.0])
    words = "MaPLe, 16 shots, seed 2"
    for options, is_listed in (([], False), (["--missing"], True), (["--seeds", "1"], True)):
        assert reports.main([str(tmp_path), *options]) == 0
        assert (words in capsys.readouterr().out) == is_listed
    pages = [render_page([tmp_path], figures=False, missing=missing)[0].decode() for missing in (False, True)]
    assert [words in page for page in pages] == [False, True]


def test_differences_are_a_table_of_their_own_that_says_pairs_and_interval(tmp_path):
    write_runs(tmp_path, CoOp=[50.0, 52.0, 54.0], CoOpDSPT=[60.0, 62.0, 67.0], MaPLe=[51.0])
    text = latex_of(tmp_path, baseline="CoOp")
    own, difference = text.split(r"\end{table")[:2]
    assert "11.0" not in own and "3 paired seeds" in difference and r"95 \%" in difference
    assert "+11.0 [+6.7, +15.3]" in latex_rows(difference)["CoOpDSPT"]
    assert latex_rows(difference)["MaPLe"].endswith(r"+1.0 (1 pair) \\")
    page = render_page([tmp_path], baseline="CoOp", figures=False)[0].decode()
    assert "+11.0 [+6.7, +15.3]" in page
