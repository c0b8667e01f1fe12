"""Pages that are written by hand and have to follow the code: errors, result.json, the Python API, the site's pages."""

import ast
import json
import re
from functools import cache

import pytest
import yaml

import dspt_atlas
from support.paths import ROOT

DOCS = ROOT / "docs"
ERRORS = re.findall(r"^\| `([^|]+)` \|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)


@cache
def texts_of_the_product():
    """Each text in the source, with … for what is filled in."""
    found = []
    for folder in ("dspt_atlas", "trainers", "datasets", "engine/dassl"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                if texts := [part.value if isinstance(part, ast.Constant) else "…" for part in parts]:
                    found += ["".join(map(str, texts))] if any(text != "…" for text in texts) else []
    return found


@pytest.mark.parametrize("sentence", ERRORS)
def test_an_error_of_the_index_is_in_the_source(sentence):
    pattern = re.compile(".*".join(map(re.escape, sentence.split("…"))))
    assert any(pattern.search(text) for text in texts_of_the_product())


def test_the_page_of_result_json_has_each_field_that_runs_write(tiny_noisy_run, tiny_base_run):
    table = (DOCS / "result_json.md").read_text(encoding="utf-8").split("|---|---|\n")[1]
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    written = [json.loads((run / "result.json").read_text()).keys() for run in (tiny_noisy_run, tiny_base_run)]
    assert listed == set().union(*written)


def test_the_page_of_the_api_has_each_public_name():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert {*dspt_atlas.__all__} <= {*re.findall(r"`(\w+)", page)}
    assert {*re.findall(r"^::: dspt_atlas\.(\w+)$", page, re.MULTILINE)} < {*dspt_atlas.__all__}


# The texts that name files of the repository; CHANGELOG.md also names what was there once.
TEXTS = [
    *DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "engine").glob("*.md"),
    ROOT / "datasets" / "embedded_data" / "ATTRIBUTION.md",
    *(path for folder in ("configs", "scripts") for path in (ROOT / folder).rglob("*.*") if path.suffix != ".pyc"),
]  # fmt: skip
NAMED = re.compile(
    r"(?<![\w./@}-])(?:benchmarks|configs|datasets|docs|dspt_atlas|engine|scripts|tests|trainers)/[\w./+-]*\w(?![\w*{<])"
)
PROGRAM = re.compile(r"(?<![\w./*<>-])\w+\.(?:py|sh)\b")
TO_BE_MADE = ("configs/trainers/Anchored", "scripts/dspt_atlas")  # by a contributor; by `dspt-atlas adopt` in a fork
OF_OTHERS = {  # what a user writes, a fork gets, upstream has; and a file that each room has
    "my_script.py", "make_photos.py", "decide.py", "noisy.sh", "base2new.sh", "parse_test_res.py", "keys.py",
}  # fmt: skip


def test_the_files_and_programs_that_texts_name_exist():
    missing = []
    for page in TEXTS:
        text, near = page.read_text(encoding="utf-8"), (ROOT, page.parent, page.parent / "tests")
        named = [file for file in NAMED.findall(text) if not file.startswith(TO_BE_MADE)]
        named += [program for program in PROGRAM.findall(text) if program not in OF_OTHERS]
        missing += [f"{page}: {name}" for name in named if not any((folder / name).exists() for folder in near)]
    assert not missing


def test_every_page_is_in_the_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {*re.findall(r"[\w/]+\.md", str(site["nav"]))}
    assert {path.name for path in DOCS.glob("*.md")} <= pages
    assert [next(iter(group)) for group in site["nav"]] == [
        "First hour", "How-tos", "Methods and evidence", "Reference", "Project",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_a_line_of_text_has_at_most_120_characters(path):
    """Tables, code and pictures may be wider: they cannot be broken."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 120] == []
