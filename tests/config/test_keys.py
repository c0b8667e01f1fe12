"""A configuration key is declared once; its default, refusals, role and page follow from the declaration."""

import pytest

from dspt_atlas.config import reference
from dspt_atlas.config.build import build_cfg
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.roles import role
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import DASSLS, KEYS, ROLES, Need, declare, flatten
from dspt_atlas.keys.ranges import at_least, one_of, positive
from dspt_atlas.paths import CONFIGS

PAGE = CONFIGS.parent / "docs" / "keys.md"
COOP = {
    "dataset_config_file": CONFIGS / "datasets" / "emoji.yaml",
    "config_file": CONFIGS / "trainers" / "CoOp" / "emoji_rn.yaml",
    "trainer": "CoOp",
}


@pytest.fixture(autouse=True)
def declarations_are_taken_back():
    before = dict(KEYS)
    yield
    KEYS.clear()
    KEYS.update(before)


def test_one_declaration_is_all_that_a_new_key_takes():
    sgd = Need(lambda run: run.cfg.OPTIM.NAME == "sgd", "OPTIM.NAME sgd")
    declare("OPTIM.CLIP_NORM", 1.0, "largest norm of a gradient", positive(), needs=sgd)
    assert default_cfg().OPTIM.CLIP_NORM == 1.0
    assert build_cfg(COOP, ["OPTIM.CLIP_NORM", "2"]).OPTIM.CLIP_NORM == 2.0
    with pytest.raises(UserError, match=r"OPTIM\.CLIP_NORM.*-1\.0"):
        build_cfg(COOP, ["OPTIM.CLIP_NORM", "-1"])
    with pytest.raises(UserError, match=r"OPTIM\.CLIP_NORM.*OPTIM\.NAME sgd"):
        build_cfg(COOP, ["OPTIM.CLIP_NORM", "2", "OPTIM.NAME", "adam"])
    assert role("OPTIM.CLIP_NORM") == "identity"


def test_a_declaration_may_be_read_again_as_a_notebooks_cell_is():
    for _ in range(2):
        declare("TRAINER.FOCAL.GAMMA", 2.0, "how much less a sample counts that is predicted well", at_least(0))
    with pytest.raises(ValueError, match=r"TRAINER\.FOCAL\.GAMMA"):
        declare("TRAINER.FOCAL.GAMMA", 3.0, "how much less a sample counts that is predicted well", at_least(0))


def test_the_key_of_a_method_of_ones_own_is_no_other_trainers():
    declare("TRAINER.FOCAL.GAMMA", 2.0, "how much less a sample counts that is predicted well", at_least(0))
    assert default_cfg().TRAINER.FOCAL.GAMMA == 2.0
    with pytest.raises(UserError, match=r"TRAINER\.FOCAL\.GAMMA.*CoOp"):
        build_cfg(COOP, ["TRAINER.FOCAL.GAMMA", "3"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "TRAINER.GCE.Q"},
        {"role": "hardware"},
        {"role": "location"},
        {"role": "location", "digest": "weights"},
        {"name": "TRAINER.GCE.LOUD", "role": "observing"},
    ],
    ids=str,
)
def test_a_declaration_that_means_nothing_is_an_error_of_the_programme(wrong):
    with pytest.raises(ValueError, match=wrong.get("name", "TEST.LOUD")):
        declare(**{"name": "TEST.LOUD", "default": False, "comment": "print more", **wrong})


def test_a_default_that_is_not_allowed_is_refused_where_it_is_declared():
    with pytest.raises(ValueError, match=r"TEST\.LOUD"):
        declare("TEST.LOUD", "very", "print more", one_of("yes", "no"))


def test_every_declared_key_is_a_key_with_a_comment_and_a_role():
    assert set(KEYS) <= {key for key, _ in flatten(default_cfg())}
    assert [key.name for key in KEYS.values() if not key.comment or key.comment.endswith(".")] == []
    assert {key.role for key in KEYS.values()} == set(ROLES)


def test_every_key_of_ours_is_declared():
    theirs = {key for key, _ in flatten(default_cfg()) if key not in KEYS}
    assert {key.partition(".")[0] for key in theirs} == {"VERSION", "TRAINER"}  # of trainers that Dassl bundles


def test_what_is_printed_names_default_role_allowed_values_and_needs(capsys):
    assert reference.main(["hard_loss"]) == 0
    printed = capsys.readouterr().out
    assert all(fact in printed for fact in ("TRAINER.ATLAS.HARD_LOSS ce", "identity", "ce, dspt", "PERIOD above 1"))
    assert reference.main(["optim.*_lr"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "}
    assert names >= {"OPTIM.STAGED_LR", "OPTIM.WARMUP_MIN_LR"} and "OPTIM.LR" not in names


def test_a_pattern_that_no_key_has_is_a_mistake(capsys):
    assert reference.main(["TRAINER.GCE.QQ"]) == 2
    assert "TRAINER.GCE.Q" in capsys.readouterr().err


def test_the_page_is_up_to_date(capsys):
    assert reference.main(["--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), "dspt-atlas keys --markdown > docs/keys.md"


def test_the_defaults_of_dassls_keys_are_dassls():
    from dassl.config import get_cfg_default

    theirs = dict(flatten(get_cfg_default()))
    assert {key.name for key in KEYS.values() if key.default is DASSLS} <= set(theirs)
