"""One data set in several spellings, and options of the command that does a plan."""

import pytest

from dspt_atlas.config.reading import DATASETS, dataset_name, registered_name
from dspt_atlas.errors import UserError
from dspt_atlas.run.train import read_arguments
from dspt_atlas.tools import run_plan


@pytest.mark.parametrize("name", ["oxford_pets", "OxfordPets", "oxfordpets", str(DATASETS / "oxford_pets.yaml")])
def test_spellings_of_a_data_set_are_one(name):
    assert (dataset_name(name), registered_name(name)) == ("oxford_pets", "OxfordPets")


def test_own_yamls_stay_and_unknown_names_are_refused_with_the_choices(tmp_path):
    (tmp_path / "dtd.yaml").write_text("DATASET: {NAME: OwnCSV}")
    assert dataset_name(str(tmp_path / "dtd.yaml")) == str(tmp_path / "dtd.yaml")
    assert registered_name(str(tmp_path / "dtd.yaml")) == "OwnCSV"
    with pytest.raises(UserError) as error:
        dataset_name("pets")
    assert all(text in str(error.value) for text in ('"pets"', "oxford_pets", "own_csv"))


@pytest.mark.parametrize("name", ["Emoji", str(DATASETS / "emoji.yaml")])
def test_a_plan_takes_every_spelling_the_folder_of_weights_and_options_after_pairs(name, tmp_path, capsys):
    def commands(*words):
        assert run_plan.main(["noisy", *words, "--dry-run", "--seeds", "1", "--trainer", "CoOp"]) == 0
        return capsys.readouterr().out

    expected = commands("emoji", "sym", "0.5", "OPTIM.MAX_EPOCH", "1", "MODEL.CLIP_DIR", str(tmp_path))
    assert commands(name, "sym", "0.5", "OPTIM.MAX_EPOCH", "1", "--clip-dir", str(tmp_path)) == expected


@pytest.mark.parametrize("name", ["Emoji", "emoji", str(DATASETS / "emoji.yaml")])
def test_one_run_takes_every_spelling_too(name):
    options = ["--dataset-config-file", name, "--config-file", str(DATASETS.parent / "trainers/CoOp/emoji_rn.yaml")]
    cfg, _ = read_arguments([*options, "--trainer", "CoOp"])
    assert cfg.DATASET.NAME == "Emoji"


def test_the_paths_of_yamls_may_have_blanks(tmp_path, capsys):
    (tmp_path / "my data").mkdir()
    data, config = (tmp_path / "my data" / name for name in ("own set.yaml", "own config.yaml"))
    data.write_text(f"DATASET: {{NAME: OwnFolder, ROOT: '{tmp_path}'}}")
    config.write_text("OPTIM: {MAX_EPOCH: 1}")
    arguments = ["noisy", f"emoji,{data}", "sym", "0.5", "--config", str(config), "--trainer", "CoOp", "--seeds", "1,2"]
    assert run_plan.main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(f"'{data}'") == 2
