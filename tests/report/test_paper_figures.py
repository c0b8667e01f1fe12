"""Figures for a paper: one look per method, sizes of columns, letters that lie inside and over nothing else."""

import itertools
import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from dspt_atlas.report.figures import draw_figures, main, style
from dspt_atlas.report.figures.style import LOOKS, WIDTHS, looks
from dspt_atlas.results.order import METHODS
from support.results import with_backbone, write_result

LONG = "a data set whose name is longer than any column of any paper, and $ has signs of its own"
MEMORISED = {"right_accuracy": 50.0, "wrong_memorised": 5.0, "wrong_corrected": 9.0}
HISTORY = [{"epoch": epoch, "test_accuracy": 40.0 + epoch, **MEMORISED} for epoch in range(1, 51)]
FIGURES = ("noise_rate", "memorisation", "accuracy_by_epoch", "learners")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Runs of two learners and all methods, at several rates, on a data set with a long name."""
    folder = tmp_path_factory.mktemp("tree")
    for learner, method in itertools.product(("CoOp", "CoCoOp"), METHODS[1:]):
        for kind, rate in (("none", 0), ("sym", 0.25), ("sym", 0.75), ("asym", 0.4)):
            noise = {"family": "relabel", "type": kind, "rate": rate} if rate else None
            trainer = learner + ("" if method == "CE" else method)
            fields = {"dataset": LONG, "noise": noise, "history": HISTORY, "learner": learner, "method": method}
            write_result(folder / trainer / f"{kind}{rate}", 60.0, trainer=trainer, **fields)
    write_result(folder / "zero", 50.0, trainer="ZeroshotCLIP", dataset=LONG)
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, by the first words of their files' names."""
    found = {}
    monkeypatch.setattr(style, "picture", lambda figure, kind, name: found.update({name: figure}) or b"")
    return found


def _outside(axis):
    """Return the labels of ticks that are not drawn, because they lie outside of the axis."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
def test_no_letter_is_clipped_and_none_lies_over_another(tree, drawn, columns, tmp_path):
    draw_figures([tree], tmp_path, FIGURES, columns)
    assert {name.split("_a-data")[0] for name in drawn} >= set(FIGURES)
    for name, figure in drawn.items():
        assert figure.get_figwidth() == WIDTHS[columns], name
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        unseen = {label for panel in figure.axes for axis in (panel.xaxis, panel.yaxis) for label in _outside(axis)}
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        texts = [text for text in texts if text not in unseen]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
        page = figure.bbox.padded(1)
        for words, box in boxes:
            assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), (name, words)
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            assert not a.padded(-0.5).overlaps(b.padded(-0.5)), (name, one, other)
        assert min(text.get_fontsize() for text in texts) >= 7, name


def test_a_method_looks_the_same_in_every_figure_and_no_two_methods_look_alike(tree, drawn, tmp_path):
    draw_figures([tree], tmp_path, FIGURES)
    colours = {}
    for figure in drawn.values():
        for panel in figure.axes:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                line = handle[0] if isinstance(handle, tuple) else handle
                method = re.sub(r"^(CoCoOp|CoOp)| \(ls\)", "", label) or "CE"
                colours.setdefault(method, set()).add(line.get_color())
    assert all(len(found) == 1 for found in colours.values()) and len(colours) >= len(METHODS)
    assert len(set().union(*colours.values())) == len(colours)


def test_every_method_has_a_look_that_can_be_read_without_colour():
    assert set(METHODS) == set(LOOKS)
    assert len({(marker, line) for _, marker, line in LOOKS.values()}) == len(LOOKS)
    own = looks({f"{learner}{method}": method for learner in ("CoOp", "CoCoOp", "KgCoOp") for method in METHODS})
    kinds = {(look["marker"], str(look["linestyle"]), look.get("markerfacecolor")) for look in own.values()}
    assert len(kinds) == len(own)
    other = looks({"CoOpFocal": "Focal", "CoOp": "CE"})
    assert other["CoOpFocal"]["color"] not in {colour for colour, *_ in LOOKS.values()}


def test_colours_stay_apart_for_eyes_that_lack_a_kind_of_cone():
    lacking = {  # Viénot et al. 1999, on linear RGB
        "red": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
        "green": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
    }
    for matrix in lacking.values():
        seen = []
        for colour, *_ in LOOKS.values():
            linear = [value**2.2 for value in to_rgb(colour)]
            seen.append([max(0, sum(map(float.__mul__, map(float, row), linear))) ** (1 / 2.2) for row in matrix])
        gaps = [max(abs(a - b) for a, b in zip(one, two, strict=True)) for one, two in itertools.combinations(seen, 2)]
        assert min(gaps) > 0.06


def test_ticks_are_the_rates_that_were_run_and_lines_stand_side_by_side(tree, drawn, tmp_path):
    draw_figures([tree], tmp_path, ("noise_rate",))
    (figure,) = drawn.values()
    ticks = {panel.get_title(): [float(tick) for tick in panel.get_xticks()] for panel in figure.axes}
    assert ticks == {"noise: asym": [0, 40], "noise: sym": [0, 25, 75]}
    for panel in figure.axes:
        starts = [handle[0].get_xdata()[0] for handle in panel.get_legend_handles_labels()[0]]
        assert len(set(starts)) == len(starts)


def test_columns_are_an_option_of_the_command(tree, drawn, tmp_path, capsys):
    for columns in ("1", "2"):
        arguments = [str(tree), "--output", str(tmp_path), "--figure", "noise_rate", "--columns", columns]
        assert main(arguments) == 0
        assert {path.suffix for path in tmp_path.glob("noise_rate*")} == {".png", ".svg", ".pdf", ".csv"}
        assert {figure.get_figwidth() for figure in drawn.values()} == {WIDTHS[int(columns)]}
    with pytest.raises(SystemExit) as refused:
        main([*arguments[:-1], "3"])
    assert refused.value.code == 2


def test_titles_name_the_backbones(drawn, tmp_path):
    for number, name in enumerate(("EmojiRN", "/weights/vit_b16.pt")):
        for rate in (0.25, 0.5):
            noise, folder = {"family": "relabel", "type": "sym", "rate": rate}, tmp_path / f"{number}{rate}"
            write_result(folder, 50.0, trainer=("CoOp", "MaPLe")[number], noise=noise)
            with_backbone(folder, name)
    draw_figures([tmp_path], tmp_path / "out", ("noise_rate",))
    (figure,) = drawn.values()
    assert "EmojiRN and vit_b16.pt" in figure.get_suptitle()


def test_pictures_hold_their_description(tree, tmp_path):
    paths = draw_figures([tree], tmp_path, ("noise_rate",))
    svg = next(path for path in paths if path.suffix == ".svg")
    words = style.description_of(svg)
    assert "a data set" in words and "$ has signs" in words and "noise: sym" in words and "CoCoOpDSPT" in words
