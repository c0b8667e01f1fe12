"""CONTRACT.md has every section and number that tests cite; a test cites each difference from upstream."""

import re
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[1]
CONTRACT = (ENGINE / "CONTRACT.md").read_text(encoding="utf-8")
SECTIONS = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", CONTRACT, re.MULTILINE))
DIFFERENCES = set(re.findall(r"^\| (F\d\d) \|", CONTRACT, re.MULTILINE))


def cited_sections(text):
    """The numbers after "section" or "sections"."""
    lists = re.findall(r"[Ss]ections? (\d[\d.]*(?:(?:, | and | to )\d[\d.]*)*)", text)
    return {number.strip(".") for numbers in lists for number in re.findall(r"\d[\d.]*", numbers)}


def cited_differences(text):
    """The numbers such as F14, with those between the two of "F06 to F11"."""
    ranges = re.findall(r"\bF(\d\d) to F(\d\d)\b", text)
    between = {f"F{number:02}" for first, last in ranges for number in range(int(first), int(last) + 1)}
    return between | set(re.findall(r"\bF\d\d\b", text))


def citing_files():
    """The engine's tests, and in a checkout those of the project that name the contract."""
    others = (ENGINE.parent / "tests").rglob("test_*.py")
    named = [path for path in others if "CONTRACT.md" in path.read_text(encoding="utf-8")]
    return sorted({*ENGINE.glob("tests/test_*.py"), *named} - {Path(__file__).resolve()})


@pytest.mark.parametrize("path", [*citing_files(), ENGINE / "CONTRACT.md"], ids=lambda path: path.name)
def test_what_is_cited_is_there(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "CONTRACT.md":
        text = re.sub(r"sections 14, 16 and 18", "", text)  # named as left out
    assert cited_sections(text) - SECTIONS == set()
    assert cited_differences(text) - DIFFERENCES == set()


def test_every_file_of_tests_says_which_section_it_tests():
    assert [
        path.name for path in citing_files() if "CONTRACT.md, section" not in path.read_text(encoding="utf-8")
    ] == []


def test_every_difference_is_tested():
    cited = set().union(*(cited_differences(path.read_text(encoding="utf-8")) for path in citing_files()))
    assert DIFFERENCES - cited == set()


def test_the_tests_that_the_contract_names_exist():
    named = set(re.findall(r"\btest_engine_\w+\.py", CONTRACT))
    assert len(named) > 5 and all((ENGINE / "tests" / name).is_file() for name in named)
