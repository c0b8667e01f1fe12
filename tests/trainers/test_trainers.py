"""Every registered trainer on a tiny data set and a tiny random CLIP: training, checkpoints, resuming, evaluation."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from dassl.engine import TrainerBase
from dassl.utils import Registry
from sklearn.metrics import f1_score

from dspt_atlas.errors import NonFiniteError, UserError
from dspt_atlas.trainers import losses, registry
from dspt_atlas.trainers.checkpoints import find_checkpoint
from dspt_atlas.trainers.evaluation import classification_results
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.methods import atlas
from dspt_atlas.trainers.monitor import EpochMonitor
from dspt_atlas.trainers.trainer import PromptTrainer
from support.refusals import refused

PROMPT_TRAINERS = list(registry.LEARNERS)
LEARNING = [*PROMPT_TRAINERS, *registry.METHOD_TRAINERS]
CACHED = ("INPUT.CACHE", "features")

pytestmark = pytest.mark.usefixtures("private_cache")


def _prompts(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.prompt_learner.state_dict().items()}


def _assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _curve(trainer, key="train_loss"):
    return [epoch[key] for epoch in trainer.report["history"]]


def _test_logits(trainer):
    with trainer._evaluating("test") as batches:
        return torch.cat([logits for logits, _ in batches])


@pytest.mark.parametrize("name", LEARNING)
def test_trains_saves_evaluates_and_loads(name, tiny_run, tiny_clip_path, tmp_path, capsys):
    trainer = tiny_run(name, tiny_clip_path, tmp_path / "run")
    before, clip_before = _prompts(trainer), trainer.model.clip_model.state_dict()
    clip_before = {key: tensor.clone() for key, tensor in clip_before.items()}
    trainer.train()
    after = _prompts(trainer)
    assert not all(torch.equal(before[key], after[key]) for key in before)
    _assert_equal(clip_before, trainer.model.clip_model.state_dict())

    printed = capsys.readouterr().out.splitlines()
    assert printed.index("Finish training") < printed.index("=> result")
    assert f"* accuracy: {trainer.results['accuracy']:.1f}%" in printed
    assert [epoch["epoch"] for epoch in trainer.report["history"]] == [1, 2]
    assert all(math.isfinite(loss) for loss in _curve(trainer))
    assert trainer.results["total"] == 16
    assert set(trainer.results["per_class_accuracy"]) == set(trainer.dm.dataset.classnames)
    assert trainer.report["seconds"] >= sum(_curve(trainer, "seconds"))
    assert trainer.report["peak_memory_bytes"] > 1_000_000

    file = tmp_path / "run" / trainer.model_name / "model.pth.tar-2"
    _assert_equal(torch.load(file, weights_only=True)["state_dict"], after)
    fresh = tiny_run(name, tiny_clip_path, tmp_path / "other", "SEED", 7)
    fresh.load_model(str(tmp_path / "run"), epoch=2)
    fresh.test()
    assert fresh.results == trainer.results
    assert torch.equal(_test_logits(fresh), _test_logits(trainer))


@pytest.mark.parametrize("name", ["CoOp", "CoCoOpDSPT", "ZeroshotCLIP"])
def test_a_resnet_serves_as_well(name, tiny_run, tiny_resnet_clip_path, tmp_path):
    trainer = tiny_run(name, tiny_resnet_clip_path, tmp_path)
    trainer.train()
    assert trainer.results["total"] == 16


def test_maple_on_a_resnet_is_refused(tiny_run, tiny_resnet_clip_path, tmp_path):
    with pytest.raises(UserError, match="ResNet"):
        tiny_run("MaPLe", tiny_resnet_clip_path, tmp_path)


class Interrupted(Exception):
    pass


def _interrupt_after(trainer, epochs):
    before_epoch = trainer.before_epoch

    def stop():
        if trainer.epoch == epochs:
            raise Interrupted
        before_epoch()

    trainer.before_epoch = stop
    with pytest.raises(Interrupted):
        trainer.train()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CoOp", ()),
        ("CoOpGCE", CACHED),
        ("CoCoOpDSPT", ("TEST.PERIOD", 1)),
        ("MaPLeMAE", ()),
        ("KgCoOp", ()),
        ("KgCoOpOLS", CACHED),
        ("DePTKgCoOpDSPT", CACHED),
        ("DePTMaPLe", ()),
        ("ProGrad", ()),
        ("ProGradATLaS", (*CACHED, "TRAINER.PROGRAD.CSC", True)),
        ("TCP", ()),
        ("TCPDSPT", (*CACHED, "OPTIM.NAME", "adam", "OPTIM.ADAM_EPS", 1e-3)),
        ("MaPLeATLaS", ("TRAINER.ATLAS.SOFT_LABELS", "isl")),
        ("IVLPATLaS", ()),
        ("VPT", ()),
        ("PromptSRCDSPT", ("TEST.PERIOD", 1)),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, options, tiny_run, tiny_clip_path, tmp_path):
    def build(folder):
        return tiny_run(name, tiny_clip_path, tmp_path / folder, "OPTIM.MAX_EPOCH", 3, *options)

    whole = build("whole")
    whole.train()
    _interrupt_after(build("broken"), epochs=1)
    resumed = build("broken")
    resumed.train()
    _assert_equal(_prompts(resumed), _prompts(whole))
    for key in ("epoch", "train_loss", "train_accuracy"):
        assert _curve(resumed, key) == _curve(whole, key)
    assert resumed.results == whole.results


def test_upstream_dassl_which_saves_no_state_of_the_run_still_resumes(tiny_run, tiny_clip_path, tmp_path, monkeypatch):
    monkeypatch.delattr(TrainerBase, "extra_state")
    monkeypatch.delattr(TrainerBase, "load_extra_state")
    monkeypatch.setattr(TrainerBase, "_run_state", lambda trainer: {})
    _interrupt_after(tiny_run("CoOpATLaS", tiny_clip_path, tmp_path), epochs=1)
    resumed = tiny_run("CoOpATLaS", tiny_clip_path, tmp_path)
    resumed.train()
    assert _curve(resumed, "epoch") == [2]
    assert resumed.results["total"] == 16


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.parametrize("name", ["CoOpDSPT", "CoCoOp", "KgCoOp", "DePTCoOp", "ProGrad", "TCP"])
def test_cached_features_give_the_losses_of_images(name, tower, request, tiny_run, tmp_path):
    path = request.getfixturevalue({"vit": "tiny_clip_path", "resnet": "tiny_resnet_clip_path"}[tower])
    images = tiny_run(name, path, tmp_path / "images", "OPTIM.MAX_EPOCH", 3, "INPUT.VIEWS", 2)
    images.train()
    features = tiny_run(name, path, tmp_path / "features", "OPTIM.MAX_EPOCH", 3, "INPUT.VIEWS", 2, *CACHED)
    features.train()
    assert _curve(features) == pytest.approx(_curve(images), rel=1e-5)
    for key, tensor in _prompts(images).items():
        torch.testing.assert_close(_prompts(features)[key], tensor, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(_test_logits(features), _test_logits(images), rtol=1e-4, atol=1e-4)


def test_a_warm_cache_gives_the_same_run_as_a_cold_one(tiny_run, tiny_clip_path, tmp_path):
    cold = tiny_run("CoOp", tiny_clip_path, tmp_path / "cold", *CACHED)
    cold.train()
    warm = tiny_run("CoOp", tiny_clip_path, tmp_path / "warm", *CACHED)
    warm.train()
    _assert_equal(_prompts(warm), _prompts(cold))


def test_each_epoch_has_its_view(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, "INPUT.VIEWS", 2)
    images = []
    for epoch in range(3):
        trainer.train_loader_x.dataset.set_epoch(epoch)
        images.append(trainer.train_loader_x.dataset[0]["img"])
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


@pytest.mark.parametrize("options", [("TEST.PERIOD", 1), ("DATALOADER.NUM_WORKERS", 2), ("TRAIN.PRINT_FREQ", 1)])
def test_what_only_watches_changes_nothing(options, tiny_run, tiny_clip_path, tmp_path):
    plain = tiny_run("CoOp", tiny_clip_path, tmp_path / "plain")
    plain.train()
    watched = tiny_run("CoOp", tiny_clip_path, tmp_path / "watched", *options)
    watched.train()
    _assert_equal(_prompts(watched), _prompts(plain))
    assert watched.results == plain.results
    if "TEST.PERIOD" in options:
        assert _curve(watched, "test_accuracy")[-1] == pytest.approx(watched.results["accuracy"])


def test_maple_refuses_cached_features(tiny_run, tiny_clip_path, tmp_path):
    with refused("MaPLeDSPT", "INPUT.CACHE none"):
        tiny_run("MaPLeDSPT", tiny_clip_path, tmp_path, *CACHED)


@pytest.mark.parametrize(
    ("frequency", "kept"), [(0, [4, 5]), (2, [2, 4, 5]), (3, [3, 4, 5]), (1, [1, 2, 3, 4, 5]), (5, [4, 5])]
)
def test_two_checkpoints_and_those_asked_for_are_kept(frequency, kept, tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run(
        "CoOp", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 5, "TRAIN.CHECKPOINT_FREQ", frequency, "TEST.NO_TEST", True
    )
    trainer.train()
    found = sorted(path.name for path in (tmp_path / "prompt_learner").glob("model.pth.tar-*"))
    assert found == [f"model.pth.tar-{epoch}" for epoch in kept]


def test_best_val_is_deployed_and_loaded_by_default(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, "TEST.FINAL_MODEL", "best_val", "TEST.SPLIT", "val")
    trainer.train()
    best = torch.load(tmp_path / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert trainer.results["accuracy"] == pytest.approx(best["val_result"])
    assert trainer.results["total"] == 8
    assert find_checkpoint(tmp_path / "prompt_learner").name == "model-best.pth.tar"


def test_a_missing_model_is_refused_with_what_was_looked_for_and_what_is_there(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path)
    trainer.train()
    with refused("model.pth.tar-9", "model.pth.tar-1, model.pth.tar-2"):
        trainer.load_model(str(tmp_path), epoch=9)
    with refused(tmp_path / "nowhere"):
        trainer.load_model(str(tmp_path / "nowhere"))


def test_damaged_prompts_are_told_in_a_sentence(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path)
    trainer.train()
    path = tmp_path / "prompt_learner" / "model.pth.tar-2"
    saved = torch.load(path, weights_only=True)
    torch.save({"state_dict": saved["state_dict"]}, path)
    trainer.load_model(str(tmp_path), epoch=2)  # by other code, without its epoch
    saved["state_dict"]["ctx"][0] = math.nan
    torch.save(saved, path)
    with refused("model.pth.tar-2", "ctx"):
        trainer.load_model(str(tmp_path), epoch=2)
    (tmp_path / "prompt_learner" / "checkpoint").write_bytes(b"\xff\xfe")
    with refused(tmp_path / "prompt_learner"):
        trainer.load_model(str(tmp_path))


def test_prompts_serve_other_classes_unless_class_specific(tiny_run, tiny_clip_path, tmp_path):
    for name, options in (
        *((name, ()) for name in ("CoOp", "MaPLe", "KgCoOpDSPT", "ProGrad", "TCPDSPT", "IVLPGCE", "VPT")),
        *((name, ("TRAINER.COOP.CSC", True)) for name in ("CoOpMAE", "DePTCoOp")),
        ("PromptSRCDSPT", ()),
        ("ProGradMAE", ("TRAINER.PROGRAD.CSC", True)),
    ):
        folder = tmp_path / name
        tiny_run(name, tiny_clip_path, folder, "DATASET.SUBSAMPLE_CLASSES", "base", *options).train()
        other = tiny_run(name, tiny_clip_path, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new", *options)
        if options:
            with pytest.raises(UserError, match="CSC"):
                other.load_model(str(folder), epoch=2)
        else:
            other.load_model(str(folder), epoch=2)
            other.test()
            assert other.results["total"] == 8


def test_initial_weights_are_loaded_strictly(tiny_run, tiny_clip_path, tmp_path):
    trained = tiny_run("CoOp", tiny_clip_path, tmp_path / "first")
    trained.train()
    file = str(tmp_path / "first" / "prompt_learner" / "model.pth.tar-2")
    _assert_equal(_prompts(tiny_run("CoOp", tiny_clip_path, tmp_path, "MODEL.INIT_WEIGHTS", file)), _prompts(trained))
    with refused("meta_net"):
        tiny_run("CoCoOp", tiny_clip_path, tmp_path, "MODEL.INIT_WEIGHTS", file)
    with pytest.raises(UserError, match=r"MODEL\.INIT_WEIGHTS"):
        tiny_run("CoOp", tiny_clip_path, tmp_path, "MODEL.INIT_WEIGHTS", file + "0")


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tiny_run, tiny_clip_path, tmp_path):
    options = ("OPTIM.LR", 1e38, "OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "constant", "OPTIM.MAX_EPOCH", 4)
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, *options)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert "epoch 2" in message
    assert "batch" in message
    assert "1e+38" in message and "fp32" in message
    assert str(Path(trainer.dm.dataset.train_x[0].impath).parent.parent) in message
    saved = torch.load(find_checkpoint(tmp_path / "prompt_learner"), weights_only=True)
    assert saved["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


def test_reading_losses_late_as_on_a_gpu_changes_nothing(tiny_run, tiny_clip_path, tmp_path, monkeypatch):
    often = tiny_run("CoOp", tiny_clip_path, tmp_path / "often")
    often.train()
    monkeypatch.setattr(PromptTrainer, "reads_every_step", False)
    late = tiny_run("CoOp", tiny_clip_path, tmp_path / "late", "TRAIN.PRINT_FREQ", 2)
    late.train()
    _assert_equal(_prompts(late), _prompts(often))
    assert _curve(late) == _curve(often)
    monkeypatch.setattr(EpochMonitor, "add", _with_nan_at_step_1(EpochMonitor.add))
    broken = tiny_run("CoOp", tiny_clip_path, tmp_path / "broken", "TRAIN.PRINT_FREQ", 3)
    with refused("loss", "nan", "epoch 1", "batch 2", error=NonFiniteError):
        broken.train()
    assert not (tmp_path / "broken" / "prompt_learner").exists()


def _with_nan_at_step_1(add):
    def changed(monitor, loss, logits, batch, step):
        add(monitor, loss * math.nan if step == 1 else loss, logits, batch, step)

    return changed


@pytest.mark.parametrize("precision", ["fp16", "amp", "bf16"])
@pytest.mark.parametrize("name", ["CoOpDSPT", "MaPLeATLaS"])
def test_half_precision_steps_follow_float32_ones(name, precision, tiny_run, tiny_clip_path, tmp_path, monkeypatch):
    """On a CPU, which only these tests make compute so: autocast, loss scaling, resuming with the scale."""
    full = tiny_run(name, tiny_clip_path, tmp_path / "full")
    full.train()
    monkeypatch.setattr(PromptTrainer, "_choose_precision", lambda trainer: trainer._use_precision(precision))
    half = tiny_run(name, tiny_clip_path, tmp_path / "half")
    assert (half.scaler is None) == (precision == "bf16")
    logits = []
    half.criterion = lambda z, batch: logits.append(z) or type(half).criterion(half, z, batch)
    half.train()
    assert all(tensor.dtype == torch.float32 for tensor in logits)
    assert _curve(half) == pytest.approx(_curve(full), rel=0.05)
    assert _curve(half) != _curve(full)
    tiny_run(name, tiny_clip_path, tmp_path / "half").train()


def test_prompts_that_are_not_finite_are_never_saved(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, "DATALOADER.TRAIN_X.BATCH_SIZE", 24)
    update = trainer.update

    def diverge(*terms):
        update(*terms)
        trainer.model.prompt_learner.ctx.data.fill_(math.inf)

    trainer.update = diverge
    with refused("prompts", "epoch 1", error=NonFiniteError):
        trainer.train()
    assert not (tmp_path / "prompt_learner").exists()


def _logits_and_batch(count=6, classes=4):
    generator = torch.Generator().manual_seed(3)
    label = torch.arange(count) % classes
    return torch.randn(count, classes, generator=generator), {"label": label, "index": torch.arange(count).flip(0)}


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("CoOp", losses.cross_entropy_loss),
        ("MaPLeDSPT", losses.double_softmax_loss),
        ("CoCoOpMAE", losses.mae_loss),
        ("CoOpGCE", lambda logits, label: losses.gce_loss(logits, label, q=0.4)),
    ],
)
def test_each_method_trains_with_its_loss(name, function, tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run(name, tiny_clip_path, tmp_path, "TRAINER.GCE.Q", 0.4)
    logits, batch = _logits_and_batch()
    assert torch.equal(trainer.criterion(logits, batch), function(logits, batch["label"]))


def test_dspt_passes_the_settings_of_its_ablations_on(tiny_run, tiny_clip_path, tmp_path):
    node = ("TRAINER.DSPT.TEMPERATURE", 0.5, "TRAINER.DSPT.PRECISION", "bf16")
    logits, batch = _logits_and_batch()
    expected = losses.double_softmax_loss(logits, batch["label"], 0.5, torch.bfloat16)
    assert torch.equal(tiny_run("CoOpDSPT", tiny_clip_path, tmp_path, *node).criterion(logits, batch), expected)


@pytest.mark.parametrize("kind", ["ls", "csl", "isl"])
@pytest.mark.parametrize("hard", ["ce", "dspt"])
def test_atlas_alternates_given_and_soft_labels(kind, hard, tiny_run, tiny_clip_path, tmp_path, capsys):
    options = ("TRAINER.ATLAS.SOFT_LABELS", kind, "TRAINER.ATLAS.HARD_LOSS", hard, "TRAINER.ATLAS.PERIOD", 2)
    trainer = tiny_run(
        "CoOpATLaS", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 4, "TRAINER.ATLAS.ALPHA", 0.3, *options
    )
    trainer.train()
    report = trainer.report["atlas"]
    assert report["schedule"] == ["hard", "soft", "hard", "soft"]
    assert (report["soft_labels"], report["period"], report["alpha"]) == (kind, 2, 0.3)
    assert 0 < report["mean_entropy"] <= math.log(4)
    assert report["seconds"] > 0
    printed = capsys.readouterr().out
    assert f"epoch [1/4] supervised by given labels ({hard})" in printed
    assert f"epoch [4/4] supervised by soft labels ({kind})" in printed

    logits, batch = _logits_and_batch()
    trainer.epoch = 2
    expected = {"ce": losses.cross_entropy_loss, "dspt": losses.double_softmax_loss}[hard](logits, batch["label"])
    assert torch.equal(trainer.criterion(logits, batch), expected)
    trainer.epoch = 3
    soft = 0.7 * F.one_hot(batch["label"], 4) + 0.3 * _reference_similarity(trainer, kind)(batch)
    expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(trainer.criterion(logits, batch), expected, rtol=1e-4, atol=1e-5)


def _reference_similarity(trainer, kind):
    """Return a function batch -> u (B, C) with features from CLIP's own encoders."""
    import clip

    if kind == "ls":
        return lambda batch: torch.full((len(batch["label"]), 4), 0.25)
    model = trainer.model.clip_model
    names = [name.replace("_", " ") for name in trainer.dm.dataset.classnames]
    text = F.normalize(model.encode_text(clip.tokenize([f"a photo of a {name}." for name in names])), dim=1)
    if kind == "csl":
        return lambda batch: (text @ text.T / 0.1).softmax(dim=1)[batch["label"]]
    transform = trainer.test_loader.dataset.transform
    from dassl.utils import read_image

    images = torch.stack([transform(read_image(item.impath)) for item in trainer.dm.dataset.train_x])
    features = F.normalize(model.encode_image(images), dim=1)
    return lambda batch: (model.logit_scale.exp() * features @ text.T).softmax(dim=1)[batch["index"]]


def test_atlas_makes_no_labels_under_evaluation(tiny_run, tiny_clip_path, tmp_path, monkeypatch):
    options = ("TRAINER.ATLAS.SOFT_LABELS", "csl")
    tiny_run("CoOpATLaS", tiny_clip_path, tmp_path, *options).train()

    def forbidden(*arguments):
        raise AssertionError("soft labels were made")

    monkeypatch.setattr(atlas, "zero_shot_features", forbidden)
    trainer = tiny_run("CoOpATLaS", tiny_clip_path, tmp_path, *options)
    trainer.load_model(str(tmp_path))
    trainer.test()
    assert "atlas" not in trainer.report
    saved = torch.load(tmp_path / "prompt_learner" / "model.pth.tar-2", weights_only=True)
    assert list(saved["state_dict"]) == ["ctx"]


@pytest.mark.parametrize(
    ("name", "key", "value", "allowed"),
    [
        ("CoOpATLaS", "TRAINER.ATLAS.PERIOD", 3, ("OPTIM.MAX_EPOCH", "2", "got 3")),
        ("MaPLeATLaS", "TRAINER.ATLAS.PERIOD", 0, ("1", "0")),
        ("CoOpATLaS", "TRAINER.ATLAS.ALPHA", 1.5, ("(0, 1]", "1.5")),
        ("CoOpATLaS", "TRAINER.ATLAS.SOFT_LABELS", "lsr", ("ls, csl, isl", "'lsr'")),
        ("CoOpATLaS", "TRAINER.ATLAS.HARD_LOSS", "mae", ("ce, dspt", "'mae'")),
        ("CoOpATLaS", "TRAINER.ATLAS.CSL_TEMPERATURE", 0.0, ("0.0",)),
        ("CoOpGCE", "TRAINER.GCE.Q", 1.2, ("(0, 1]", "1.2")),
        ("CoOpDSPT", "TRAINER.DSPT.TEMPERATURE", float("inf"), ("inf",)),
        ("MaPLeDSPT", "TRAINER.DSPT.PRECISION", "fp16", ("fp32, bf16", "'fp16'")),
        ("CoOp", "TRAINER.COOP.PREC", "fp8", ("fp16, fp32, amp, bf16", "'fp8'")),
        ("CoOp", "INPUT.CACHE", "images", ("none, features", "'images'")),
        ("CoOp", "INPUT.SIZE", (64, 64), ("32 x 32", "(64, 64)")),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(name, key, value, allowed, tiny_run, tiny_clip_path, tmp_path):
    with refused(key.split(".")[-1], *allowed):
        tiny_run(name, tiny_clip_path, tmp_path / "run", key, value)
    assert not (tmp_path / "run").exists()


def test_a_cpu_computes_in_fp32_and_says_so(tiny_run, tiny_clip_path, tmp_path, capsys):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, "TRAINER.COOP.PREC", "amp")
    assert trainer.precision == "fp32"
    assert "TRAINER.COOP.PREC amp" in capsys.readouterr().out


def test_monitor_counts_right_and_wrong_samples_apart():
    monitor = EpochMonitor(torch.device("cpu"), SimpleNamespace(clean=[0, 0, 1, 1, 2]))
    given = torch.tensor([0, 1, 1, 2, 2])  # samples 1 and 3 are wrong
    predicted = torch.tensor([0, 1, 0, 1, 2])
    logits = F.one_hot(predicted, 3).float()
    for order in ([0, 4, 1], [3, 2]):
        batch = {"label": given[order], "index": torch.tensor(order), "impath": ["x"] * len(order)}
        monitor.add(torch.tensor(2.0 if len(order) == 3 else 4.0), logits[order], batch, step=0)
    read, broken = monitor.read()
    assert broken is None
    assert read == {"loss": 3.0, "acc": pytest.approx(50.0)}
    assert monitor.summary() == {
        "train_loss": 3.0,
        "train_accuracy": pytest.approx(50.0),
        "right_accuracy": pytest.approx(200 / 3),
        "wrong_memorised": 50.0,
        "wrong_corrected": 50.0,
    }
    monitor.reset()
    monitor.add(torch.tensor(1.0), logits[:1], {"label": given[:1], "index": torch.tensor([0]), "impath": ["x"]}, 0)
    monitor.read()
    assert monitor.summary()["wrong_memorised"] is None


def test_monitor_names_the_first_step_that_is_not_finite():
    monitor = EpochMonitor(torch.device("cpu"))
    for step, loss in enumerate([1.0, math.inf, math.nan]):
        batch = {"label": torch.tensor([0]), "index": torch.tensor([step]), "impath": [f"{step}.png"]}
        monitor.add(torch.tensor(loss), torch.zeros(1, 2), batch, step)
    assert monitor.read()[1] == (1, ["1.png"], math.inf)


def test_label_noise_is_saved_before_training_and_accounted_for(tiny_run, tiny_clip_path, tmp_path, capsys):
    from dspt_atlas.datasets.noisy import register_noisy

    register_noisy()
    noise = ("DATASET.NAME", "NoisyTinyImages", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
    trainer = tiny_run("CoOpDSPT", tiny_clip_path, tmp_path, *noise)
    trainer.train()
    saved = json.loads((tmp_path / "noise.json").read_text())
    assert [sample["given"] for sample in saved["samples"]] == [item.label for item in trainer.dm.dataset.train_x]
    for epoch in trainer.report["history"]:
        assert 0 <= epoch["wrong_memorised"] + epoch["wrong_corrected"] <= 100
        mixed = (epoch["right_accuracy"] + epoch["wrong_memorised"]) / 2  # half of the samples are wrong
        assert epoch["train_accuracy"] == pytest.approx(mixed)
    assert capsys.readouterr().out.count("wrongly labelled:") == 2


def test_zero_shot_equals_clips_own_prediction(tiny_run, tiny_clip_path, tmp_path):
    import clip

    trainer = tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path)
    trainer.train()
    model = trainer.model.clip_model
    names = [name.replace("_", " ") for name in trainer.dm.dataset.classnames]
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    expected, _ = model(images, clip.tokenize([f"a photo of a {name}." for name in names]))
    torch.testing.assert_close(_test_logits(trainer), expected, rtol=1e-4, atol=1e-4)
    assert trainer.report["history"] == []


def test_zero_shot_with_cached_features_and_with_other_templates(tiny_run, tiny_clip_path, tmp_path):
    plain = _test_logits(tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path))
    cached = _test_logits(tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path, *CACHED))
    torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-4)
    key = "TRAINER.ZEROSHOT.TEMPLATE"
    everything = _test_logits(tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path, key, "all"))
    listed = "a photo of a {}. | a drawing of a {}."
    assert torch.equal(everything, _test_logits(tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path, key, listed)))
    assert not torch.allclose(everything, plain)
    with refused("{}", "a photo"):
        tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path, key, "a photo")


def test_results_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(5, (200,), generator=generator)
    predicted = torch.where(torch.rand(200, generator=generator) < 0.5, label, torch.randint(7, (200,)))
    results = classification_results(label, predicted, {y: "crane" if y in (1, 3) else str(y) for y in range(7)})
    labels = range(5)
    expected = 100 * f1_score(label, predicted, labels=labels, average="macro")
    assert results["macro_f1"] == pytest.approx(expected)
    assert results["accuracy"] == pytest.approx(100 * (label == predicted).double().mean().item())
    assert results["error_rate"] + results["accuracy"] == pytest.approx(100)
    recall = {y: 100 * (predicted[label == y] == y).double().mean().item() for y in labels}
    names = ["0", "crane (1)", "2", "crane (3)", "4"]
    assert results["per_class_accuracy"] == pytest.approx(dict(zip(names, recall.values(), strict=True)))
    assert (results["total"], results["correct"]) == (200, int((label == predicted).sum()))


def test_registration_is_idempotent_and_leaves_others_alone(monkeypatch):
    registered = Registry("TRAINER")
    monkeypatch.setattr(registry, "TRAINER_REGISTRY", registered)
    theirs = registered.register(type("CoOp", (), {}))
    for _ in range(2):
        registry.register_methods()
        registry.register_standard_trainers()
    assert set(registered.registered_names()) == {*LEARNING, "ZeroshotCLIP"}
    assert registered.get("CoOp") is theirs
    assert issubclass(registered.get("CoOpDSPT"), CoOp)
    late = registered.register(type("CoOpDSPT", (), {}))  # a fork's, imported after us
    registry.register_methods()
    assert registered.get("CoOpDSPT") is late
