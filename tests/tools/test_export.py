"""A run's linear head, read by other programs, is the run's model; learners that are not such a head are refused."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from dspt_atlas.errors import UserError
from dspt_atlas.run.model import load
from dspt_atlas.tools.export import main
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.model import load_clip

ELSEWHERE = """
import sys
import numpy as np, torch
head = torch.load(sys.argv[1], weights_only=True)
features = torch.from_numpy(np.load(sys.argv[2]))
features = features / features.norm(dim=1, keepdim=True)
np.save(sys.argv[3], (head["logit_scale"] * features @ head["weight"].T).softmax(dim=1).numpy())
assert not any(name.startswith(("dspt_atlas", "dassl", "clip")) for name in sys.modules)
print(head["classnames"], head["preprocessing"]["size"])
"""


def package(name):
    """Return the mark that skips a test without a package."""
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def model(tiny_noisy_run):
    return load(tiny_noisy_run)


@pytest.fixture(scope="module")
def images(tiny_dataset):
    return sorted((tiny_dataset / "test").rglob("*.png"))


@pytest.fixture(scope="module")
def features(model, images, tiny_clip_path):
    """Image features (B, d) of the plain backbone, not normalised."""
    with torch.no_grad():
        return ImageEncoder(load_clip(tiny_clip_path))(torch.stack([model.preprocess(path) for path in images]))


@pytest.fixture
def exported(tiny_noisy_run, tmp_path):
    """Return a function (ending) -> the file that the command wrote for the run."""

    def write(ending):
        path = tmp_path / f"head{ending}"
        assert main([str(tiny_noisy_run), "--to", str(path)]) == 0
        return path

    return write


def test_torch_alone_computes_the_models_probabilities(exported, model, images, features, tmp_path):
    np.save(tmp_path / "features.npy", features.numpy())
    files = [exported(".pt"), tmp_path / "features.npy", tmp_path / "found.npy"]
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == f"{model.classnames} [32, 32]", done.stderr
    np.testing.assert_allclose(np.load(files[2]), model.probabilities(images).numpy(), rtol=0, atol=1e-6)


@package("safetensors")
def test_safetensors_hold_the_head_and_its_facts(exported, model):
    from safetensors import safe_open

    head = model.linear_head()
    with safe_open(exported(".safetensors"), "pt") as file:
        assert {name: file.get_tensor(name).tolist() for name in ("weight", "logit_scale")} == {
            name: head[name].tolist() for name in ("weight", "logit_scale")
        }
        facts = {key: json.loads(text) for key, text in file.metadata().items()}
    assert facts == {key: head[key] for key in ("classnames", "backbone", "preprocessing")}


@package("onnx")
def test_a_graph_in_onnx_computes_the_models_probabilities(exported, model, images, features):
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load(exported(".onnx"))
    (found,) = ReferenceEvaluator(graph).run(["probabilities"], {"image_features": features.numpy()})
    np.testing.assert_allclose(found, model.probabilities(images).numpy(), rtol=0, atol=1e-6)
    facts = {prop.key: json.loads(prop.value) for prop in graph.metadata_props}
    assert facts["classnames"] == model.classnames and facts["preprocessing"]["interpolation"] == "bilinear"


@pytest.mark.parametrize("name", ["TCP", "ZeroshotCLIP"])
def test_other_learners_of_text_are_heads_too(name, train_tiny, features, images):
    model = load(train_tiny(name, *(("TRAINER.TCP.BLOCK", 1) if name == "TCP" else ())))
    head = model.linear_head()
    found = (head["logit_scale"] * torch.nn.functional.normalize(features) @ head["weight"].T).softmax(dim=1)
    torch.testing.assert_close(found, model.probabilities(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["CoCoOp", "MaPLe", "DePTCoOp"])
def test_what_is_no_linear_head_is_refused(name, train_tiny, tmp_path, capsys):
    pairs = {"MaPLe": ("INPUT.CACHE", "none"), "CoCoOp": ("TRAINER.COCOOP.N_CTX", 2)}.get(name, ())
    run = train_tiny(name, *pairs)
    with pytest.raises(UserError, match=name):
        load(run).linear_head()
    capsys.readouterr()
    assert main([str(run), "--to", str(tmp_path / "head.pt")]) == 2
    error = capsys.readouterr().err
    assert name in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["safetensors", "onnx"])
def test_a_package_that_is_missing_is_named(name, tiny_noisy_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    assert main([str(tiny_noisy_run), "--to", str(tmp_path / f"head.{name}")]) == 2
    assert f"package {name}" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["head.h5", "there.pt", "head"])
def test_a_file_that_cannot_be_written_is_refused_and_stays(file, tiny_noisy_run, tmp_path, capsys):
    (tmp_path / "there.pt").write_text("mine")
    assert main([str(tiny_noisy_run), "--to", str(tmp_path / file)]) == 2
    error = capsys.readouterr().err
    assert file in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt"] and (tmp_path / "there.pt").read_text() == "mine"
