"""Loading CLIP: every kind of checkpoint gives the same float32 weights; every bad one gives a sentence."""

import hashlib
import subprocess
import sys
import zipfile
from http.server import BaseHTTPRequestHandler

import clip
import pytest
import torch

from dspt_atlas.trainers.clip.model import backbone_input_size, fingerprint, load_clip
from support.refusals import refused
from support.server import served


def same_weights(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in state)


@pytest.fixture(scope="session")
def state(tiny_clip_path):
    return torch.load(tiny_clip_path, weights_only=True)


@pytest.mark.parametrize("tower", ["tiny_clip_path", "tiny_resnet_clip_path"])
def test_a_state_dict_loads_exactly_frozen_and_in_eval_mode(tower, request):
    path = request.getfixturevalue(tower)
    random_state = torch.get_rng_state()
    model = load_clip(path)
    assert same_weights(model, torch.load(path, weights_only=True))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert backbone_input_size(path) == model.visual.input_resolution == 32
    image, text = torch.randn(2, 3, 32, 32), clip.tokenize(["a dog", "a cat"])
    original = clip.model.build_model(torch.load(path, weights_only=True)).float()
    original.load_state_dict(torch.load(path, weights_only=True))
    for ours, theirs in zip(model(image, text), original(image, text), strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_weights_load_as_float32(state, tmp_path):
    half = {name: tensor.half() for name, tensor in state.items()}
    torch.save(half, tmp_path / "half.pt")
    model = load_clip(tmp_path / "half.pt")
    assert same_weights(model, {name: tensor.float() for name, tensor in half.items()})


def test_a_deflated_state_dict_and_one_inside_a_training_checkpoint_load(state, tmp_path):
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "plain.pt")
    deflated = zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, deflated:
        for name in plain.namelist():
            deflated.writestr(name, plain.read(name))
    assert same_weights(load_clip(tmp_path / "deflated.pt"), state)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, OpenAI's files are made with it
def test_a_torchscript_archive_loads(tiny_clip_path, state, tmp_path):
    model = load_clip(tiny_clip_path)
    torch.jit.trace(model, (torch.randn(1, 3, 32, 32), clip.tokenize("x")), check_trace=False).save(tmp_path / "jit.pt")
    assert same_weights(load_clip(tmp_path / "jit.pt"), state)


@pytest.fixture
def edited_clip(monkeypatch):
    """Let `clip` be an edited one, as forks have it; return the design details that its build_model gets."""
    seen = []
    original_class = clip.model.CLIP

    class EditedCLIP(original_class):
        def __init__(self, *arguments, design_details=None):
            super().__init__(*arguments)

    def edited_build_model(state_dict, design_details):
        seen.append(design_details)
        model = EditedCLIP(*shapes_of_tiny_clip)
        clip.model.convert_weights(model)
        model.load_state_dict(state_dict, strict=False)
        return model.eval()

    shapes_of_tiny_clip = (32, 32, 2, 64, 16, 77, 49408, 64, 1, 2)
    monkeypatch.setattr(clip.model, "CLIP", EditedCLIP)
    monkeypatch.setattr(clip.model, "build_model", edited_build_model)
    return seen


def test_an_edited_clip_gets_its_second_argument_and_keeps_float32_values(state, tiny_clip_path, edited_clip):
    assert same_weights(load_clip(tiny_clip_path), state)
    assert edited_clip[0]["vision_depth"] == 0 and edited_clip[0]["language_ctx"] == 0


@pytest.mark.parametrize("kind, weight", [("a missing weight", "ln_pre.weight"), ("a wrong shape", "ln_final.weight")])
def test_an_edited_clip_is_not_left_with_random_weights(kind, weight, state, tmp_path, edited_clip):
    damaged(state, tmp_path / "bad.pt", kind)
    with refused(tmp_path / "bad.pt", weight):
        load_clip(tmp_path / "bad.pt")


def damaged(state, path, kind):
    if kind == "a folder":
        path.mkdir()
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "another model":
        torch.save(torch.nn.Linear(3, 3).state_dict(), path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "a missing weight":
        torch.save({name: tensor for name, tensor in state.items() if name != "visual.ln_pre.weight"}, path)
    elif kind == "a wrong shape":
        torch.save({**state, "ln_final.weight": torch.ones(5)}, path)
    elif kind == "fewer positions":
        torch.save({**state, "positional_embedding": state["positional_embedding"][:20]}, path)


@pytest.mark.parametrize(
    "kind",
    [
        "a folder",
        "truncated",
        "text",
        "another model",
        "a list",
        "a missing weight",
        "a wrong shape",
        "fewer positions",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_with_one_sentence(kind, state, tmp_path):
    damaged(state, tmp_path / "bad.pt", kind)
    with refused(tmp_path / "bad.pt"):
        load_clip(tmp_path / "bad.pt")


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path):
    torch.save({"weights": pytest.raises}, tmp_path / "code.pt")
    with refused(tmp_path / "code.pt"):
        load_clip(tmp_path / "code.pt")


class WritesWhenLoaded(torch.nn.Module):
    """Scripted, its `__setstate__` makes a file: `torch.jit.load` alone would run it."""

    def __init__(self, path):
        super().__init__()
        self.weight = torch.zeros(4)
        self.path: str = path

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        self.weight = torch.from_file(state[0], shared=True, size=4)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_code_in_a_torchscript_archive_is_not_run(tmp_path):
    made = tmp_path / "made"
    torch.jit.script(WritesWhenLoaded(str(made))).save(tmp_path / "code.pt")
    made.unlink(missing_ok=True)
    with refused(tmp_path / "code.pt"):
        load_clip(tmp_path / "code.pt")
    assert not made.exists()
    torch.jit.load(tmp_path / "code.pt")
    assert made.exists()


def test_an_unknown_name_lists_the_known_ones():
    with refused("RN50", "ViT-B/16", "'ViT-B16'"):
        load_clip("ViT-B16")


@pytest.fixture
def server(state, tmp_path, monkeypatch):
    """A local server in place of OpenAI's, with one good file and one whose checksum does not match."""
    torch.save(state, tmp_path / "clip.pt")
    content = (tmp_path / "clip.pt").read_bytes()
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    digest = hashlib.sha256(content).hexdigest()
    with served(Handler) as address:
        monkeypatch.setitem(clip.clip._MODELS, "ViT-B/16", f"{address}/{digest}/ViT-B-16.pt")
        monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", f"{address}/{'0' * 64}/ViT-B-32.pt")
        yield requests


def test_a_known_name_is_downloaded_once_into_the_folder_of_the_environment(server, state, tmp_path, monkeypatch):
    monkeypatch.setenv("DSPT_ATLAS_CLIP_DIR", str(tmp_path / "models"))
    assert same_weights(load_clip("ViT-B/16"), state)
    assert same_weights(load_clip("ViT-B/16"), state)
    assert len(server) == 1 and (tmp_path / "models" / "ViT-B-16.pt").is_file()
    assert same_weights(load_clip("ViT-B/16", clip_dir=tmp_path / "others"), state)
    assert len(server) == 2


def test_a_wrong_checksum_and_a_missing_network_say_what_to_do(server, tmp_path, monkeypatch):
    with refused("ViT-B/32", tmp_path / "models"):
        load_clip("ViT-B/32", clip_dir=tmp_path / "models")
    monkeypatch.setitem(clip.clip._MODELS, "RN50", "http://127.0.0.1:9/0/RN50.pt")
    with refused("RN50", tmp_path / "models"):
        load_clip("RN50", clip_dir=tmp_path / "models")


def test_a_file_of_ones_own_under_a_known_name_is_refused_and_kept(server, tmp_path):
    own = tmp_path / "models" / "ViT-B-16.pt"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with refused(own):
        load_clip("ViT-B/16", clip_dir=own.parent)
    assert not server and [path.read_bytes() for path in own.parent.iterdir()] == [b"mine"]


KILLED = """
import os, shutil, signal, sys
import clip.clip
clip.clip._MODELS["ViT-B/16"] = sys.argv[2]
shutil.move = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
from dspt_atlas.trainers.clip.model import load_clip
load_clip("ViT-B/16", clip_dir=sys.argv[1])
"""


@pytest.mark.slow
def test_a_download_that_was_killed_is_done_again(server, state, tmp_path):
    folder = tmp_path / "models"
    command = [sys.executable, "-c", KILLED, str(folder), clip.clip._MODELS["ViT-B/16"]]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -9
    assert len([path for path in folder.iterdir() if path.suffix == ".partial"]) == 1
    assert same_weights(load_clip("ViT-B/16", clip_dir=folder), state)
    assert sorted(path.name for path in folder.iterdir() if path.name != ".download.lock") == ["ViT-B-16.pt"]


def test_input_sizes_of_known_names_need_no_file():
    assert [backbone_input_size(name) for name in ("RN50", "RN50x4", "ViT-L/14@336px")] == [224, 288, 336]


def test_the_fingerprint_follows_the_image_tower_alone(tiny_clip_path):
    model, other = load_clip(tiny_clip_path), load_clip(tiny_clip_path)
    other.token_embedding.weight.data[0] += 1
    assert fingerprint(model) == fingerprint(other)
    next(other.visual.parameters()).data.flatten()[0] += 1e-6
    assert fingerprint(model) != fingerprint(other)
