"""The code in CONTRIBUTING.md works as it stands."""

import json
import re
import subprocess
import sys

import pytest

from support.paths import ROOT
from support.runs import result_of


@pytest.mark.slow
def test_the_examples_run(tiny_dataset, tiny_clip_path, tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "mine.py"
    script.write_text("\n".join(blocks))
    images = tmp_path / "birds" / "images"
    images.parent.mkdir()
    images.symlink_to(tiny_dataset)
    classes = sorted(folder.name for folder in (tiny_dataset / "train").iterdir())
    splits = {
        split: [
            [path.relative_to(tiny_dataset).as_posix(), label, name]
            for label, name in enumerate(classes)
            for path in sorted((tiny_dataset / split / name).iterdir())
        ]
        for split in ("train", "val", "test")
    }
    (tmp_path / "birds" / "split_birds.json").write_text(json.dumps(splits))
    noise = ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"]
    for trainer, pairs in (("CoOpFocal", noise), ("Anchored", [])):
        folder = tmp_path / trainer
        command = [sys.executable, str(script), "--trainer", trainer, "--backbone", tiny_clip_path, "--seed", "1"]
        command += ["--root", str(tmp_path), "--output-dir", str(folder), "DATASET.NAME", "Birds"]
        command += [
            "OPTIM.MAX_EPOCH",
            "2",
            "OPTIM.NAME",
            "sgd",
            "OPTIM.LR_SCHEDULER",
            "cosine",
            "DATASET.NUM_SHOTS",
            "2",
        ]
        command += ["DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
        command += ["INPUT.TRANSFORMS", "('random_flip', 'normalize')", *pairs]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert result_of(folder)["trainer"] == trainer
