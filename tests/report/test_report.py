"""The HTML page: its content; it needs nothing, leaks nothing and works in a real browser."""

import base64
import hashlib
import html
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import zlib

import pytest

from dspt_atlas.report import table as reports
from dspt_atlas.report.page import command
from dspt_atlas.report.page import page as page_module
from dspt_atlas.report.page.page import render_page
from dspt_atlas.report.page.runs import CHUNK
from support.results import write_result

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
HISTORY = [{"epoch": epoch, "train_loss": 1 / epoch, "wrong_memorised": 2.0 * epoch} for epoch in range(1, 51)]
SYM = {"family": "relabel", "type": "sym", "rate": 0.5, "realised_rate": 0.48}


@pytest.fixture
def tree(tmp_path):
    """A folder of results: three done (one with noise), one failed, one half-finished, one damaged."""
    root = tmp_path / "output"
    write_result(root / "a1", 80.0, versions={"torch": "2.9"}, per_class_accuracy={"cat": 70.0, "dog": 90.0})
    write_result(root / "a2", 84.0, seed=2)
    write_result(root / "noisy", 40.0, trainer="CoOpDSPT", noise=SYM, history=HISTORY, seconds=12.5)
    (root / "a1" / "log.txt").write_text("".join(f"line {number}\n" for number in range(100)))
    for name in ("failed", "half"):
        (root / name / "prompt_learner").mkdir(parents=True)
        (root / name / "config.yaml").write_text("SEED: 7\nTRAINER: {NAME: MaPLe}\nDATASET: {NAME: NoisyEmoji}\n")
    (root / "failed" / "failed.json").write_text('{"epoch": 4, "error": "loss not finite"}')
    (root / "half" / "prompt_learner" / "model.pth.tar-7").write_text("")
    (root / "damaged").mkdir()
    (root / "damaged" / "result.json").write_text("{")
    return root


def page_of(root, **options):
    """Return the page's text, its rows by folder, and its details by folder."""
    text = render_page([root], figures=False, **options)[0].decode()
    data = json.loads(
        re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1], parse_constant=lambda name: pytest.fail(name)
    )
    packed = re.findall(r'id="details-\d+">(.*?)</script>', text)
    details = [entry for chunk in packed for entry in json.loads(zlib.decompress(base64.b64decode(chunk)))]
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    return text, {row["folder"]: row for row in rows}, dict(zip([row["folder"] for row in rows], details, strict=True))


def values_of(details, title):
    return {name: value for part in details["sections"] if part["title"] == title for name, value in part["values"]}


def test_every_run_is_listed_with_its_state_and_details(tree):
    _, rows, details = page_of(tree)
    assert {folder: row["state"] for folder, row in rows.items()} == {
        "a1": "done",
        "a2": "done",
        "noisy": "done",
        "failed": "failed",
        "half": "half-finished",
        "damaged": "unreadable",
    }
    assert (rows["noisy"]["labels"], rows["noisy"]["accuracy"], rows["noisy"]["seconds"]) == ("sym 0.5", 40.0, 12.5)
    assert (rows["half"]["method"], rows["half"]["data set"], rows["half"]["seed"]) == ("MaPLe", "Emoji", 7)
    assert "epoch 4: loss not finite" in details["failed"]["note"] and "7 epochs done" in details["half"]["note"]
    assert "cannot be read" in details["damaged"]["note"]
    assert details["a1"]["log"].splitlines() == [f"line {number}" for number in range(88, 100)]
    assert values_of(details["a1"], "Environment")["torch"] == "2.9"
    assert values_of(details["a1"], "Configuration")["OPTIM.LR"] == "0.1"
    assert values_of(details["half"], "Configuration")["TRAINER.NAME"] == "MaPLe"
    audit = values_of(details["noisy"], "Wrong labels")
    assert audit["realised_rate"] == "0.48" and audit["wrong memorised (last epoch, %)"] == "100"


def test_an_unfinished_run_with_the_labels_of_a_file_is_not_called_clean(tree):
    for key in ("FILE", "MATRIX", "WRONG"):
        folder = tree / key
        folder.mkdir()
        noise = f"{{TYPE: none, RATE: 0.0, FILE: '', MATRIX: '', WRONG: '', {key}: /n/mine.csv}}"
        (folder / "config.yaml").write_text(f"SEED: 7\nDATASET: {{NAME: NoisyEmoji, NOISE: {noise}}}\n")
    rows = page_of(tree)[1]
    assert all("mine.csv" in rows[key]["labels"] for key in ("FILE", "MATRIX", "WRONG"))
    assert rows["half"]["labels"] == "clean"


def test_a_run_that_a_process_is_at_is_running_and_a_dead_one_is_not(tree):
    holder = tree / "half" / ".holder.json"
    holder.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
    _, rows, details = page_of(tree)
    assert rows["half"]["state"] == "running" and f"process {os.getpid()}" in details["half"]["note"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    holder.write_text(json.dumps({"pid": ended.pid, "host": platform.node()}))
    assert page_of(tree)[1]["half"]["state"] == "half-finished"
    holder.write_text(json.dumps({"pid": ended.pid, "host": "another"}))
    assert page_of(tree)[1]["half"]["state"] == "running"


def test_a_long_history_is_shown_evenly_and_to_its_end(tree):
    _, _, details = page_of(tree)
    (epochs,) = [part for part in details["noisy"]["sections"] if "columns" in part]
    shown = [int(row[epochs["columns"].index("epoch")]) for row in epochs["rows"]]
    assert shown[-1] == 50 and len(shown) == 10 and len({b - a for a, b in itertools.pairwise(shown)}) == 1


def test_the_tables_are_those_of_parse_results(tree):
    text, _, _ = page_of(tree, baseline="CoOp", wanted_seeds=(1, 2, 3))
    expected, _ = reports.report([tree], (1, 2, 3), baseline="CoOp")
    cells = {cell.strip() for line in expected.splitlines() if line.startswith("| ") for cell in line.split("|")[1:-1]}
    shown = {html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(?:<button[^>]*>)?([^<]+)<", text)}
    assert cells <= shown and "82.0 ± 2.0" in shown
    assert "Emoji, 16 shots, by training labels" in text


def test_text_of_users_is_never_markup(tmp_path):
    name = HOSTILE.replace("/", "∕")
    folder = tmp_path / "output" / name
    write_result(folder, 50.0, dataset=HOSTILE, trainer=HOSTILE, per_class_accuracy={HOSTILE: 1.0}, lr=HOSTILE)
    (folder / "log.txt").write_text(HOSTILE)
    text, rows, details = page_of(tmp_path / "output", title=HOSTILE)
    assert "<img" not in text and "<script>alert" not in text
    assert rows[name]["data set"] == HOSTILE and details[name]["log"] == HOSTILE
    assert values_of(details[name], "Lowest accuracies of 1 classes (%)") == {HOSTILE: "1"}


def test_the_page_needs_nothing_and_allows_only_its_own_script_and_style(tree):
    text, _, _ = page_of(tree)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        expected = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind} 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?!data:|#)|url\(|@import|https?://|fetch\(', text)


def test_details_are_packed_by_the_hundred_and_numbers_that_are_none_are_left_out(tmp_path):
    for number in range(CHUNK + 1):
        write_result(tmp_path / f"run{number}", float("nan"), seed=number)
    text, rows, details = page_of(tmp_path)
    assert text.count('id="details-') == 2 and len(details) == CHUNK + 1
    assert {row["accuracy"] for row in rows.values()} == {None}


def test_one_experiment_in_two_folders_is_counted_once_and_said(tmp_path):
    write_result(tmp_path / "a", 80.0)
    write_result(tmp_path / "b", 80.0)
    _, _, details = page_of(tmp_path)
    assert not details["a"]["note"] and "same experiment" in details["b"]["note"]


def test_figures_are_pictures_in_the_page(tree):
    page, holds = render_page([tree])
    picture = re.search(rb'<img src="data:image/(png|svg\+xml);base64,([^"]+)"', page)
    content = base64.b64decode(picture[2], validate=True)
    assert b"<svg" in content if picture[1] == b"svg+xml" else content.startswith(b"\x89PNG")
    assert "figures" in holds and b"memorisation: Emoji" in page


def test_figures_are_no_more_than_can_be_looked_at_and_the_page_says_so(tmp_path, monkeypatch):
    for dataset in ("Emoji", "Pets", "Cars"):
        write_result(tmp_path / dataset, 40.0, dataset=dataset, noise=SYM, history=HISTORY)
        write_result(tmp_path / f"{dataset}_clean", 60.0, dataset=dataset)
    for lr in (1, 2, 3):
        write_result(tmp_path / f"lr{lr}", 60.0, dataset="Food", lr=lr, config_name=f"lr{lr}", history=HISTORY)
        write_result(tmp_path / f"base{lr}", 60.0, lr=lr, subsample="base", history=HISTORY)
    monkeypatch.setattr(page_module, "MOST_FIGURES", 3)
    monkeypatch.setattr(page_module, "MOST_METHODS", 2)
    page, holds = render_page([tmp_path])
    captions = re.findall(r"<figcaption>(\w+ ?\w*): (?:Emoji|Pets|Cars)", page.decode())
    assert captions == ["noise rate", "noise rate", "memorisation"]
    left_out = "Emoji, 16 shots, base classes: 3 methods; Food, 16 shots: 3 methods; all after 3 figures."
    assert left_out in page.decode() and "3 figures" in holds


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{empty}"], "No run in"),
        (["{empty}/nowhere"], "Expected a folder of results"),
        (["{tree}", "--watch", "0"], "Expected --watch to be at least 1 second, got 0"),
        (["{tree}", "--watch", "nan"], "Expected --watch"),
        (["{tree}", "--out", "{empty}"], "is a folder"),
        (["{tree}", "--baseline", "Nobody"], 'baseline "Nobody", but of CoOp, CoOpDSPT'),
    ],
)
def test_mistakes_are_refused_in_a_sentence_and_write_nothing(tree, tmp_path, capsys, arguments, sentence):
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "tree": tree}
    before = sorted(tmp_path.rglob("*"))
    assert command.main([argument.format(**places) for argument in arguments] + ["--no-figures"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_that_have_not_finished_make_a_page_too(tree, capsys):
    for name in ("a1", "a2", "noisy"):
        shutil.rmtree(tree / name)
    assert command.main([str(tree)]) == 0
    assert "1 failed" in capsys.readouterr().out
    assert '<h2 id="tables-title">' not in (tree / "report.html").read_text()


def column(page, number, table="#list"):
    return page.locator(f"{table} tbody > tr:not(.details) > *:nth-child({number})").all_inner_texts()


@pytest.mark.slow
def test_sorting_details_and_filter_in_a_browser(tree, opened):
    write_result(tree / HOSTILE.replace("/", "∕"), 60.0, dataset=HOSTILE, lr=HOSTILE)
    out = tree / "report.html"
    out.write_bytes(render_page([tree])[0])
    page = opened(out)
    assert page.locator("#list tr.run").count() == 7 and page.locator("tr.details").count() == 0
    head = page.locator("#list th", has_text="accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 9) == ["84.0", "80.0", "60.0", "40.0", "–", "–", "–"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 9) == ["40.0", "60.0", "80.0", "84.0", "–", "–", "–"]
    page.locator("table.results").first.get_by_role("button", name="method").click(click_count=1)
    toggle = page.get_by_role("button", name="failed: details of failed")
    toggle.press("Enter")
    page.get_by_text("loss not finite").wait_for()
    assert toggle.get_attribute("aria-expanded") == "true"
    page.locator("#filter").fill("coop clean")
    assert sorted(column(page, 12)) == sorted(["a1", "a2", HOSTILE.replace("/", "∕")])
    page.locator("#filter").fill("")
    page.get_by_role("button", name="1 half-finished").click()
    assert column(page, 12) == ["half"]
    page.reload()
    assert column(page, 12) == ["half"] and head.get_attribute("aria-sort") == "ascending"


@pytest.mark.slow
def test_a_phone_scrolls_inside_tables_only(tree, opened):
    for number in range(3):
        write_result(tree / ("long" * 20) / str(number), 50.0, shots=2**number, trainer="CoOpDSPT", noise=SYM)
    (tree / "report.html").write_bytes(render_page([tree])[0])
    page = opened(tree / "report.html", width=360)
    for toggle in page.locator("tr.run button").all()[:4]:
        toggle.click()
    page.locator(".inner").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelector('#list').parentElement.scrollWidth") > 360
    assert page.evaluate("[...document.querySelectorAll('.inner')].every((part) => part.offsetWidth <= 360)")


@pytest.mark.slow
def test_an_open_page_follows_a_sweep_and_keeps_what_the_reader_did(tree, opened):
    out = tree / "report.html"
    arguments = [sys.executable, "-m", "dspt_atlas", "report", tree, "--watch", "5", "--no-figures"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            assert "3 done" in watcher.stdout.readline()
            page = opened(out)
            page.get_by_role("button", name="done: details of a2").click()
            page.locator(".inner").wait_for()
            page.locator("#filter").fill("coop")
            write_result(tree / "a0", 90.0, seed=3)
            page.get_by_role("button", name="done: details of a0").wait_for(timeout=60_000)
            page.locator(".inner").wait_for()
            toggle = page.get_by_role("button", name="done: details of a2")
            assert toggle.get_attribute("aria-expanded") == "true" and page.locator(".inner").count() == 1
            assert page.locator("#filter").input_value() == "coop"
            assert page.evaluate("document.activeElement.id") == "filter"
        finally:
            watcher.send_signal(signal.SIGINT)
            rest = watcher.communicate(timeout=60)[0]
    assert watcher.returncode == 0 and "Stopped by SIGINT" in rest
    assert '"refresh": 0' in out.read_text()


@pytest.mark.slow
def test_dark_mode_has_dark_figures_and_print_has_light_ones_that_fit_the_paper(tree, opened):
    (tree / "report.html").write_bytes(render_page([tree])[0])
    page = opened(tree / "report.html", width=390)
    shade = "getComputedStyle(document.querySelector('figure img')).filter"
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(shade) == "none"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(shade) != "none" and page.evaluate(back) != "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark", media="print")
    page.set_viewport_size({"width": 794, "height": 1123})  # A4
    assert page.evaluate(shade) == "none" and page.evaluate(back) == "rgb(255, 255, 255)"
    wide = "[...document.querySelectorAll('table, figure')].map((part) => part.getBoundingClientRect().right)"
    assert max(page.evaluate(wide)) <= 794


def test_the_description_of_a_figure_names_panels_axes_and_methods(tree):
    page = render_page([tree])[0].decode()
    (words,) = {html.unescape(words) for words in re.findall(r'alt="([^"]*)"', page) if "predicted as given" in words}
    assert all(part in words for part in ("Emoji", "sym 0.5", "epoch", "CoOp"))
