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


def test_every_page_is_in_the_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {*re.findall(r"[\w/]+\.md", str(site["nav"]))}
    assert {path.name for path in DOCS.glob("*.md")} <= pages
    assert [next(iter(group)) for group in site["nav"]] == [
        "First hour", "How-tos", "Methods and evidence", "Reference", "Project",
    ]  # fmt: skip
