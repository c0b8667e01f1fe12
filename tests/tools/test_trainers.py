"""`dspt-atlas trainers`: the table of prompt learners and methods, which docs/methods.md shows."""

from dspt_atlas.tools.trainers import main, table
from dspt_atlas.trainers.declare import LEARNERS, METHODS
from dspt_atlas.trainers.registry import METHOD_TRAINERS
from support.paths import ROOT


def test_the_page_of_the_methods_has_the_table_that_the_command_prints(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed == table()
    assert printed in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), "dspt-atlas trainers"


def test_each_pair_of_the_table_is_a_trainer_and_no_other_is():
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table().splitlines()]
    pairs = {(line[0], method) for line in lines for method, cell in zip(head, line, strict=True) if cell == "yes"}
    assert {(learner, "CE") for learner in LEARNERS} <= pairs
    assert {learner + method for learner, method in pairs if method != "CE"} == METHOD_TRAINERS.keys()
    assert set(head[1:]) == {"CE", *METHODS}
