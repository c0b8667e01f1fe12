"""The page of `dspt-atlas labels`: every image and its labels, nothing from elsewhere, decisions that `apply` reads."""

import base64
import csv
import io
import json
import re

import pytest
from PIL import Image

from dspt_atlas.errors import UserError
from dspt_atlas.report.page.decisions import COLUMNS, DECISIONS, DECISIONS_FILE, SIDE, Doubt, render_decisions_page
from dspt_atlas.tools.labels.apply import Decision, read_decisions

HOSTILE = '</script><script>alert("x")</script>'
NAMES = ["wren", HOSTILE, "=1+1", 'a "quoted", name', "owl"]


@pytest.fixture
def doubts(tmp_path, write_images):
    """Thirty doubtful labels: more than a page of the list has; the last suggestion is the given label."""
    paths = [f"images/{'=' if number == 1 else ''}{HOSTILE.replace('/', '∕')}{number}.png" for number in range(30)]
    write_images(tmp_path, paths)
    given = [NAMES[number % 5] for number in range(30)]
    suggested = [NAMES[(number + 1) % 5] for number in range(29)] + [given[29]]
    return [
        Doubt(number + 1, "train" if number % 2 else "test", str(tmp_path / path), *names, 0.125, 0.75)
        for number, (path, *names) in enumerate(zip(paths, given, suggested, strict=True))
    ]


def written(doubts, folder, known_by="these labels"):
    page, texts = folder / "label_errors.html", (f"Labels of {HOSTILE}", f"apply {HOSTILE}")
    page.write_bytes(render_decisions_page(texts[0], doubts, 99, "somebody", NAMES, texts[1], known_by))
    return page


def test_every_image_and_its_labels_are_on_the_page_and_texts_are_escaped(doubts, tmp_path):
    text = written(doubts, tmp_path).read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [Doubt(*(shown[name] for name in Doubt._fields)) for shown in data["doubts"]] == doubts
    assert data["classnames"] == NAMES and data["columns"] == list(COLUMNS) and data["file"] == DECISIONS_FILE
    for shown in data["doubts"]:
        with Image.open(io.BytesIO(base64.b64decode(shown["image"].removeprefix("data:image/jpeg;base64,")))) as image:
            assert max(image.size) == SIDE
    assert "<script>alert" not in text and text.count("<script") == 2
    assert "30 most doubtful of 99" in text and not re.search(r'(?:src|href)="(?!data:|#)', text)


def test_the_script_knows_the_decisions_that_are_read(doubts, tmp_path):
    text = written(doubts, tmp_path).read_text()
    words = re.search(r"const WORDS = \{(.*?)\}", text)[1]
    assert sorted(re.findall(r"(\w+):", words)) == sorted(DECISIONS)


def test_an_image_that_cannot_be_read_is_named(doubts, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="broken.png"):
        written([doubts[0]._replace(path=str(tmp_path / "broken.png"))], tmp_path)


def saved(page, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save decisions").click()
    assert download.value.suggested_filename == DECISIONS_FILE
    download.value.save_as(folder / "saved.csv")
    return folder / "saved.csv"


@pytest.mark.slow
def test_a_person_decides_and_the_command_reads_it(doubts, tmp_path, opened):
    page = opened(written(doubts, tmp_path), width=390)
    assert page.locator(".card").count() == 24 and page.get_by_role("button", name="Save decisions").is_disabled()
    page.keyboard.press("j")
    for key in ("s", "x", "r", "r", "u"):  # the last one is of the fifth card, which is undecided anyway
        page.keyboard.press(key)
    page.locator("#doubt-4").get_by_role("button", name="Right").click()  # a second time: undecided again
    choice = page.locator("#doubt-6 select")
    choice.focus()
    choice.select_option("owl")
    page.get_by_role("button", name="Next").click()
    page.locator("#doubt-30").get_by_role("button", name="Remove").click()
    assert page.locator("#doubt-30").get_by_role("button", name="Take suggestion").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.reload()
    assert page.locator("#progress").inner_text().startswith("5 of 30")
    path = saved(page, tmp_path)
    found = read_decisions(path, NAMES, str)
    assert {name: own[1:] for name, own in found.items()} == {
        doubts[0].path: ("suggested", doubts[0].suggested, doubts[0].given),
        doubts[1].path: ("remove", "", doubts[1].given),
        doubts[2].path: ("right", "", doubts[2].given),
        doubts[5].path: ("other", "owl", doubts[5].given),
        doubts[29].path: ("remove", "", doubts[29].given),
    }
    assert isinstance(found[doubts[0].path], Decision)
    header, *rows = csv.reader(path.open(encoding="utf-8"))
    assert tuple(header) == COLUMNS and len(rows) == 5
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    page.get_by_role("button", name="Undecided", exact=True).click()
    assert page.locator(".card").count() == 24 and page.locator("#place").inner_text().endswith("25 images")


@pytest.mark.slow
def test_decisions_are_kept_for_the_same_labels_only(doubts, tmp_path, browser):
    page = browser.new_context().new_page()

    def decided(doubts, known_by):
        page.goto(written(doubts, tmp_path, known_by).as_uri())
        return page.locator("#progress").inner_text()

    decided(doubts, "these")
    for key in "jxr":
        page.keyboard.press(key)
    assert decided(doubts, "others").startswith("0 of 30")
    assert re.findall(r"\d+", decided(doubts[1:], "these")) == ["1", "29", "1"]  # one is not on this page
    assert set(read_decisions(saved(page, tmp_path), NAMES, str)) == {doubts[0].path, doubts[1].path}
