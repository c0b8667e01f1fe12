"""Tables of README.md and docs/ that name the file of their numbers say what the file says.

A comment above a table names its source: `tables.csv` and the table there, `runs` and the part and seeds, `seconds` of
a run or `hours` of all.
"""

import csv
import itertools
import json
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress

import pytest
import run

from support.paths import ROOT

EVIDENCE = ROOT / "docs" / "evidence"
SOURCED = re.compile(r"^<!-- (tables\.csv|runs|seconds|hours): (.*?) -->\n\n((?:\|.*\n)+)", re.MULTILINE)


def tables():
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for kind, what, lines in SOURCED.findall(path.read_text(encoding="utf-8")):
            (_, *columns), _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
            yield pytest.param(kind, what, columns, rows, id=f"{path.name}: {kind}, {what}")


def results(part):
    with open(EVIDENCE / "runs" / f"{part}.results.jsonl", encoding="utf-8") as file:
        yield from map(json.loads, file)


def setting(noise):
    return f"{noise['type']} {noise['rate']:g}" if noise else "clean"


def of_tables(name, digits=1):
    """{(row, column): text} of a table of the evidence."""
    with open(EVIDENCE / "tables.csv", encoding="utf-8", newline="") as file:
        return {
            (entry["row"], entry["column"]): f"{float(entry['mean']):.{digits}f}"
            for entry in csv.DictReader(file)
            if entry["table"] == name and entry["mean"] and not entry["baseline"]
        }


def of_runs(words):
    """{(trainer, setting): text} of a part's accuracies with some seeds, as tables of results have them."""
    part, *seeds = words.replace(",", " ").replace("seeds", " ").split()
    accuracies = defaultdict(list)
    for result in results(part):
        if str(result["seed"]) in seeds:
            accuracies[result["trainer"], setting(result["noise"])].append(result["accuracy"])
    return {
        key: f"{statistics.mean(found):.1f} ± {statistics.pstdev(found):.1f}"
        for key, found in accuracies.items()
        if len(found) == len(seeds)
    }


def of_seconds(words):
    """{(learner, column): text}: trainings with 16 shots per class on all classes, of the parts."""
    found = defaultdict(list)
    for part in words.split():
        for result in results(part):
            if (result["shots"], result["subsample"], result["evaluated"]) == (16, "all", None) and result["history"]:
                found[f"{result['learner']}, `{result['config_name']}`"].append(result)
    return {
        (name, column): text
        for name, runs in found.items()
        for column, text in {
            "runs": f"{len(runs)}",
            "epochs": f"{runs[0]['config']['OPTIM']['MAX_EPOCH']}",
            "seconds": f"{statistics.median(run['seconds'] for run in runs):.0f}",
            "peak MiB": f"{statistics.median(run['peak_memory_bytes'] for run in runs) / 2**20:.0f}",
        }.items()
    }


def of_hours(words):
    """{(part, column): text}: the number of kept runs, and the sum of their seconds."""
    found = {}
    for part in words.split():
        seconds = [result["seconds"] or 0 for result in results(part)]
        found |= {(part, "runs"): f"{len(seconds):,}", (part, "hours"): f"{sum(seconds) / 3600:.1f}"}
    return found


SECTIONS = {  # of docs/evidence.md: its tables, its parts, and a figure
    "Wrong labels": (("noise", "ablation_CoOpDSPT"), ("noise",), ""),
    "All prompt learners": (("learners",), ("learners",), ""),
    "Generalisation": (("base_new", "transfer", "fewshot", "ablation"), ("generalisation",), ""),
    "Photographs": (("photos",), ("photos",), "memorisation_Caltech101_sym-0.5_16shots.csv"),
}


def rounded(paths, columns=None):
    """The numbers of CSV files to one decimal, without sign."""
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            for entry in csv.DictReader(file):
                for column in columns or entry:
                    with suppress(ValueError):
                        yield entry.get("table", ""), f"{abs(float(entry[column])):.1f}"


@pytest.mark.parametrize("title", SECTIONS)
def test_the_figures_of_the_evidence_in_words_are_in_its_tables(title):
    of_table, parts, figure = SECTIONS[title]
    text = (EVIDENCE.parent / "evidence.md").read_text(encoding="utf-8").split(f"\n### {title}")[1].split("\n###")[0]
    told = {*re.findall(r"(?<![\d.])(?<!sym )(?<!epoch )\d+\.\d(?!\d)", text)}
    known = {f"{result['accuracy']:.1f}" for part in parts for result in results(part)}
    columns = ("mean", "std", "difference", "low", "high")
    known |= {number for name, number in rounded([EVIDENCE / "tables.csv"], columns) if name.startswith(of_table)}
    known |= {number for _, number in rounded([EVIDENCE / "figures" / figure] if figure else [])}
    assert told - known == set()


@pytest.mark.parametrize("kind, what, columns, rows", list(tables()))
def test_a_table_says_what_its_file_says(kind, what, columns, rows):
    known = {"tables.csv": of_tables, "runs": of_runs, "seconds": of_seconds, "hours": of_hours}[kind](what)
    shown = {(row, column): cell for row, *cells in rows for column, cell in zip(columns, cells, strict=True)}
    assert {key: known.get(key) for key in shown} == shown


def test_readme_and_the_advice_have_such_tables():
    assert {"README.md", "choose.md", "time.md"} <= {table.id.split(":")[0] for table in tables()}


@pytest.mark.parametrize("name, table", [("cases", run.table), ("scaling", run.scaling_table)])
def test_the_tables_of_the_benchmark_are_those_of_its_file(name, table):
    figures = json.loads((EVIDENCE / "performance.json").read_text(encoding="utf-8"))
    page = (EVIDENCE.parent / "performance.md").read_text(encoding="utf-8")
    shown = page.split(f"<!-- performance.json: {name} -->")[1].strip().splitlines()
    assert table(figures[name]).splitlines() == list(itertools.takewhile(bool, shown))
    assert not any(record["quick"] for record in [*figures["cases"], figures["scaling_where"]])


def test_the_tables_of_sweeps_are_those_of_its_file():
    lines = (EVIDENCE / "sweeps.jsonl").read_text(encoding="utf-8").splitlines()
    cases = {record["case"]: record for record in map(json.loads, lines)}
    page = (EVIDENCE.parent / "sweeps.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- sweeps\.jsonl -->\n\n((?:\|.*\n)+)", page)
    shown = set()
    for lines in tables:
        (_, *names), _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
        shown |= set(names)
        for number, name in enumerate(names, 1):
            assert {row[number] for row in rows} <= {str(value) for value in cases[name].values()}, name
    assert shown == set(cases)


def test_zero_shot_figures_of_photographs_are_those_of_their_file():
    measured = json.loads((EVIDENCE / "photo_things.json").read_text(encoding="utf-8"))
    rows = [
        [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in measured["rows"]
    ]
    assert rows_of("photos.md", "<!-- photo_things.json -->") == rows
    columns = ("PhotoEN", "PhotoEN-MiniLM", "unrounded")
    prompts = [[row["set"], *(f"{row[column]:.2f}" for column in columns)] for row in measured["caltech101"]]
    assert rows_of("photos.md", "<!-- photo_things.json: caltech101 -->") == prompts


def test_the_seconds_of_a_first_and_a_further_run_of_photographs_are_those_of_their_file():
    measured = json.loads((EVIDENCE / "photos_first.json").read_text(encoding="utf-8"))["seconds"]
    text = (EVIDENCE.parent / "photos.md").read_text(encoding="utf-8")
    told = re.search(r"took (\d+) s, and the next one (\d+) s", " ".join(text.split()))
    assert told and [int(number) for number in told.groups()] == [round(value) for value in measured.values()]


def test_the_cost_of_reading_results_is_that_of_its_file():
    measured = json.loads((EVIDENCE / "results_size.json").read_text(encoding="utf-8"))
    assert f"table and the page of {measured['runs']:,} results" in (EVIDENCE.parent / "reports.md").read_text()
    names = {"naive": "naive reader", "table": "table", "page": "page", "page_without_figures": "page without figures"}
    expected = [
        [name, f"{found['seconds']}", f"{found['memory_mib']:,}", f"{found.get('times_naive', 1)}"]
        for name, found in ((names[key], measured[key]) for key in names)
    ]
    assert rows_of("reports.md", "## Size") == expected


def test_the_hours_of_the_full_tables_are_those_of_the_command():
    command = [sys.executable, ROOT / "benchmarks" / "sweep_hours.py"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert rows_of("sweeps.md", "**Estimated, not measured**") == cells


def rows_of(page, title):
    """The cells of the rows of the table after a title of a page."""
    after = (EVIDENCE.parent / page).read_text(encoding="utf-8").split(title)[1]
    table = re.search(r"^ *\|.*\n *\|[-|]+\n((?: *\|.*\n)+)", after, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]


@pytest.mark.parametrize("title, told, pairs", [("precision", "Precision", 36), ("backbones", "Backbones", 9)])
def test_the_worst_of_each_precision_is_that_of_the_check_of_a_gpu(title, told, pairs):
    checked = rows_of("gpu_h100.md", f"## {title}")  # learner, method, precision, logits, loss, 1 - cosine, ...
    for names, *cells in rows_of("performance.md", f"- **{told}.**"):
        rows = [row for row in checked if row[2] in names]
        worst = [max(float(row[column]) for row in rows) for column in (3, 4, 5)]
        assert len(rows) == pairs * len(names.split(" and "))
        assert [float(cell) for cell in cells] == pytest.approx(worst, rel=0.15)


def test_ratios_of_speed_are_those_of_the_check_of_a_gpu():
    ratios = defaultdict(list)  # learner, classes, batch, precision, ms, MiB, ms, MiB, ratio, ...
    for row in rows_of("gpu_h100.md", "## speed"):
        ratios[row[1], row[3]].append((float(row[8]), row[0]))
    text = (EVIDENCE.parent / "performance.md").read_text(encoding="utf-8")
    for least, most, precision in re.findall(r"([\d.]+) to ([\d.]+) times in (fp\d+)", text):
        found = sorted(value for value, _ in ratios["1000", precision])
        assert [float(least), float(most)] == pytest.approx([found[0], found[-1]], rel=0.02)
    slower = sorted(pair for pair in ratios["100", "fp16"] if pair[0] < 1)
    assert [name for _, name in slower] == ["MaPLe", "IVLP", "TCP"] and len(slower) == 3
    told = re.search(r"ratios are ([\d.]+), ([\d.]+) and ([\d.]+)\. ", text)
    assert told and [f"{value:.2f}" for value, _ in slower] == list(told.groups())
