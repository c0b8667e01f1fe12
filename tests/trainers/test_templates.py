"""Hand-written prompts: filled as written, or refused in a sentence, wherever they come from."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspt_atlas.datasets.catalogue import CATALOGUE
from dspt_atlas.datasets.embedded import EMBEDDED
from dspt_atlas.errors import UserError
from dspt_atlas.run.train import main as train_main
from dspt_atlas.trainers.templates import ENSEMBLE, KGCOOP, PROGRAD, authors_template, chosen_templates, fill
from support.paths import CONFIGS

BAD = ["{} {", "{!r}{}", "a {} of {x}", "{} {}", "{0}", "{{}}", "{", "}", "a photo", "", "{:>9}", "{}}"]


def test_a_template_is_filled_with_the_name_as_it_is():
    assert fill("a photo of a {}.", "polar_bear") == "a photo of a polar bear."
    assert fill("{}", "a {} in braces") == "a {} in braces"


@pytest.mark.parametrize("template", BAD)
def test_what_cannot_be_filled_is_refused(template):
    with pytest.raises(UserError):
        fill(template, "cat")
    with pytest.raises(UserError):
        chosen_templates(SimpleNamespace(templates=("a {}.", template)), "all")
    with pytest.raises(UserError):
        chosen_templates(SimpleNamespace(templates=("a {}.",)), f"a {{}}.|{template}")


@given(st.text(alphabet="a {}!r:0.|"))
def test_any_text_is_filled_or_refused(text):
    try:
        templates = chosen_templates(None, text)
    except UserError:
        return
    assert templates and all("cat" in fill(template, "cat") for template in templates)


def test_settings_name_templates_of_the_data_set():
    dataset = SimpleNamespace(templates=("a {}.", "the {}."))
    assert chosen_templates(dataset, "") == ("a {}.",)
    assert chosen_templates(dataset, "all") == dataset.templates
    assert chosen_templates(dataset, "ensemble") == ("a {}.", *ENSEMBLE)
    assert chosen_templates(dataset, "one {} | two {}") == ("one {}", "two {}")


@pytest.mark.parametrize("dataset", [object(), SimpleNamespace(templates=()), SimpleNamespace(templates=None)])
def test_a_data_set_without_templates_has_the_usual_one(dataset):
    assert chosen_templates(dataset, "") == chosen_templates(dataset, "all") == ("a photo of a {}.",)


def test_templates_that_are_one_text_are_refused():
    with pytest.raises(UserError):
        chosen_templates(SimpleNamespace(templates="a photo of a {}."), "")


def test_every_template_of_ours_can_be_filled():
    for dataset in (*CATALOGUE, *EMBEDDED):
        assert chosen_templates(dataset, "all") == tuple(dataset.templates)
    assert len({fill(template, "cat") for template in ENSEMBLE}) == 7


OWN = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}
OF_PROGRAD = {
    "OxfordPets": "a type of pet, a photo of a {}.",
    "OxfordFlowers": "a type of flower, a photo of a {}.",
    "FGVCAircraft": "a type of aircraft, a photo of a {}.",
    "DescribableTextures": "a texture of {}.",
    "Food101": "a type of food, a photo of {}.",
}


@pytest.mark.parametrize("noisy", ["", "Noisy"])
@pytest.mark.parametrize(
    "table, named",
    [
        (KGCOOP, {"DescribableTextures": "a photo of a {}, a type of texture."}),
        (PROGRAD, OF_PROGRAD),
    ],
)
def test_the_authors_templates_of_every_data_set(table, named, noisy):
    expected = {**OWN, **named}
    of_the_family = [dataset for dataset in CATALOGUE if dataset.__name__ != "Food101N"]  # the authors have none for it
    for dataset in (*of_the_family, *EMBEDDED):
        name = dataset.__name__
        assert authors_template(table, dataset, noisy + name) == expected.get(name, "a photo of a {}.")
    assert authors_template(table, SimpleNamespace(templates=("my {}.", "{}")), "Mine") == "my {}."


@pytest.mark.parametrize("template", BAD[:3])
@pytest.mark.parametrize("trainer, key", [("ZeroshotCLIP", "ZEROSHOT"), ("CoOpATLaS", "ATLAS")])
def test_a_run_refuses_a_template_before_anything_is_written(trainer, key, template, tmp_path, capsys):
    command = ["--dataset-config-file", CONFIGS / "datasets" / "emoji.yaml", "--trainer", trainer, "--seed", 1]
    command += ["--config-file", CONFIGS / "trainers" / "CoOp" / "emoji_rn.yaml", "--output-dir", tmp_path / "run"]
    command += ["TRAINER.ATLAS.SOFT_LABELS", "csl"] if key == "ATLAS" else []
    assert train_main([str(part) for part in (*command, f"TRAINER.{key}.TEMPLATE", template)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "run").exists()
