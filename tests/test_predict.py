"""Own images classified by a run, as a user calls the script."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dspt_atlas.prediction import main
from dspt_atlas.trained import open_run, predict

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "predict.py"


def test_json_has_the_probabilities_of_the_runs_model(tiny_noisy_run, tiny_dataset):
    images = sorted((tiny_dataset / "test").rglob("*.png"))[:3]
    command = [sys.executable, SCRIPT, "--run", tiny_noisy_run, "--json", "--top", "9", *images]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [entry["image"] for entry in found] == [str(image) for image in images]
    trainer = open_run(tiny_noisy_run)
    loader = trainer.items_loader([item for item in trainer.dm.dataset.test if item.impath == str(images[0])])
    with trainer.inferring(loader) as batches:
        (logits, _), *rest = batches
    expected = dict(zip(trainer.dm.dataset.classnames, logits.softmax(dim=1)[0].tolist(), strict=True))
    shown = {guess["class"]: guess["probability"] for guess in found[0]["classes"]}
    assert not rest and shown == pytest.approx(expected, abs=1e-5)
    assert list(shown.values()) == sorted(shown.values(), reverse=True) and sum(shown.values()) == pytest.approx(1)


def test_text_has_the_best_classes_of_an_epoch(tiny_noisy_run, tiny_dataset, capsys):
    image = next((tiny_dataset / "test").rglob("*.png"))
    assert main(["--run", str(tiny_noisy_run), "--epoch", "1", "--top", "2", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(image) and len(lines) == 3 and lines[1].strip()[0].isdigit()
    trainer = open_run(tiny_noisy_run, epoch=1)
    best = predict(trainer, [image])[0].argmax()
    assert lines[1].endswith(trainer.dm.dataset.classnames[best])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: None, "there is none at"),
        (lambda path: path.write_text("no image"), "1 of 1 images cannot be read"),
    ],
)
def test_a_missing_or_unreadable_image_is_named(make, words, tiny_noisy_run, tmp_path, capsys):
    make(tmp_path / "own.png")
    assert main(["--run", str(tiny_noisy_run), str(tmp_path / "own.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("predict.py: ") and words in error and "own.png" in error and error.count("\n") == 1


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert (
        main(["--run", str(tmp_path), str(Path(__file__).parents[1] / "docs" / "images" / "accuracy_by_epoch.png")])
        == 2
    )
    assert f"no config.yaml in {tmp_path}" in capsys.readouterr().err
