"""`dspt-atlas check-data --page`: one page with counts, images, copies, prompts and warnings, and nothing else."""

import base64
import io
import re
import shutil
from typing import Any

import pytest
from PIL import Image, ImageStat

from dspt_atlas.report.contact_sheet import COLUMNS, GAP, SIDE
from dspt_atlas.report.page import data as data_page
from dspt_atlas.tools import check_data

NAMES = ("great tit", "wren", "<b>owl</b>")
HEADER = "folder,name,prompt\ntit,great tit,great tit bird\nwren,wren,\nowl,<b>owl</b>,\n"


@pytest.fixture
def birds(tmp_path, write_images):
    """A data root with three classes in train and test, their names, and one image in both splits."""
    root = tmp_path / "birds"
    counts = {"train": 5, "test": 3}
    write_images(root, [f"{s}/{c}/{n}.png" for s, count in counts.items() for c in ("tit", "wren", "owl")
                        for n in range(count)])  # fmt: skip
    (root / "classes.csv").write_text(HEADER)
    shutil.copy(root / "train/wren/0.png", root / "test/wren/copy.png")
    return root


def check(root, page, *arguments) -> tuple[int, Any]:
    """Return the exit status of the command on a folder, and the page's text if there is one."""
    status = check_data.main(["OwnFolder", "--root", str(root), "--page", str(page), *arguments])
    return status, page.read_text() if page.is_file() else None


def pictures(text):
    """Return the page's JPEG pictures."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_the_page_shows_classes_prompts_counts_images_copies_and_warnings(birds, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, text = check(birds, page := tmp_path / "page.html")
    assert status == 0
    assert sorted(tmp_path.rglob("*")) == sorted([*before, page])
    for prompt in ("great tit bird", "wren", "&lt;b&gt;owl&lt;/b&gt;"):
        assert f"<td>a photo of a {prompt}.</td>" in text
    for name, counts in (("great tit", (5, 0, 3)), ("wren", (5, 0, 4)), ("&lt;b&gt;owl&lt;/b&gt;", (5, 0, 3))):
        cells = "".join(f'<td class="number">{count}</td>' for count in counts)
        assert re.search(rf'<th scope="row">{name}</th><td>[^<]*</td>{cells}', text)
    (warning,) = re.findall(r'<p class="notice">(.*?)</p>', text)
    copies = f"{birds}/train/wren/0.png (train, wren) = {birds}/test/wren/copy.png (test, wren)"
    assert f"{birds}/test/wren/copy.png" in warning and f"<li>{copies}</li>" in text
    assert len(pictures(text)) == 3 and re.search(r'src="data:image/(svg\+xml|png);base64', text)


def test_the_page_needs_nothing_else_and_has_no_script(birds, tmp_path):
    _, text = check(birds, tmp_path / "page.html")
    assert "<b>owl" not in text and "<script" not in text
    assert set(re.findall(r'(?:src|href)="(\w+:|#)', text)) == {"data:", "#"}


def test_images_are_shown_as_the_test_transform_crops_them(tmp_path, write_images):
    write_images(tmp_path / "two", ["other/0.png", "other/1.png"])
    (tmp_path / "two/red").mkdir()
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste("red", (100, 0, 200, 100))
    for number in range(9):
        wide.save(tmp_path / f"two/red/{number}.png", comment=number)
        wide.putpixel((0, 0), (number, 0, 0))
    status, text = check(tmp_path / "two", tmp_path / "page.html")
    sheet = pictures(text)[1]
    assert status == 0 and sheet.width == COLUMNS * (SIDE + GAP) + GAP
    corner = sheet.crop((GAP, GAP, GAP + SIDE, GAP + SIDE))  # its middle third alone is left, without normalisation
    red, green, blue = ImageStat.Stat(corner).mean
    assert red > 240 and max(green, blue) < 15


def test_own_templates_and_the_size_of_the_input_are_those_on_the_page(birds, tmp_path):
    own = ("TRAINER.ZEROSHOT.TEMPLATE", "a drawing of a {}.", "INPUT.SIZE", "(64, 32)")
    _, text = check(birds, tmp_path / "page.html", *own)
    assert "<td>a drawing of a wren.</td>" in text and "64 x 32" in text


def test_more_classes_than_anybody_looks_at_have_no_sheets(birds, tmp_path, monkeypatch):
    for limit in ("MOST_SHEETS", "MOST_NAMED", "MOST_COPIES"):
        monkeypatch.setattr(data_page, limit, 1)
    shutil.copy(birds / "train/wren/1.png", birds / "test/wren/copy1.png")
    _, text = check(birds, tmp_path / "page.html")
    assert len(pictures(text)) == 1 and text.count("<li>") == 1 and text.count('<th scope="row">') == 3


def test_without_reading_all_images_the_page_says_that_contents_were_not_compared(birds, tmp_path):
    _, text = check(birds, tmp_path / "page.html", "--no-images")
    assert "<li>" not in text and text.count("not compared") == 2 and len(pictures(text)) == 3


def test_a_data_set_that_is_refused_gets_no_page(birds, tmp_path):
    (birds / "train/wren/0.png").write_bytes(b"no image")
    before = sorted(tmp_path.rglob("*"))
    assert check(birds, tmp_path / "page.html") == (2, None)
    assert check(birds / "absent", tmp_path / "page.html") == (2, None)
    assert check(birds, tmp_path / "page.html", "--no-images") == (2, None)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_page_is_replaced_and_another_file_is_not(birds, tmp_path, capsys):
    page, mine = tmp_path / "page.html", tmp_path / "mine.html"
    check(birds, page)
    shutil.rmtree(birds / "test/owl")
    shutil.rmtree(birds / "train/owl")
    (birds / "classes.csv").unlink()
    status, text = check(birds, page)
    assert status == 0 and len(pictures(text)) == 2
    mine.write_text("<p>mine</p>")
    capsys.readouterr()
    assert check(birds, mine) == (2, "<p>mine</p>")
    out, err = capsys.readouterr()
    assert str(mine) in err and err.count("\n") == 1 and out == ""
    assert check(birds, birds) == (2, None)


@pytest.mark.parametrize(
    "key, value",
    [
        ("INPUT.SIZE", "(0, 0)"),
        ("INPUT.SIZE", "(224,)"),
        ("INPUT.INTERPOLATION", "round"),
        ("MODEL.BACKBONE.NAME", "nothing"),
        ("TRAINER.ZEROSHOT.TEMPLATE", "no place"),
    ],
)
def test_wrong_settings_of_images_and_prompts_are_refused(key, value, birds, tmp_path, capsys):
    assert check(birds, tmp_path / "page.html", key, value) == (2, None)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and value in err[0]
