"""Baselines against slow versions in explicit loops and float64, and what a resumed run must remember."""

import math
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt_atlas.trainers.losses import partitioned_loss, prediction_entropy, teacher_free_loss, uniform_divergence
from dspt_atlas.trainers.methods import joapr
from dspt_atlas.trainers.methods.nlprompt import transport_plan
from dspt_atlas.trainers.templates import ENSEMBLE
from support.refusals import refused
from support.tolerance import softmax

CACHED = ("INPUT.CACHE", "features")

pytestmark = pytest.mark.usefixtures("private_cache")


def _logits(samples=7, classes=4, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (samples,), generator=generator)


def _batch(logits, label):
    return {"label": label, "index": torch.arange(len(logits))}


def _rows(logits, label):
    return list(zip(logits.tolist(), label.tolist(), strict=True))


def test_teacher_free_loss_equals_its_definition():
    logits, label = _logits()
    expected = []
    for row, y in _rows(logits, label):
        probs = softmax(row)
        teacher = softmax([(0.99 if c == y else 0.01 / 3) / 20 for c in range(4)])
        divergence = sum(t * math.log(t / p) for t, p in zip(teacher, probs, strict=True))
        expected.append(0.9 * -math.log(probs[y]) + 0.1 * 100 * divergence)
    assert teacher_free_loss(logits, label).item() == pytest.approx(mean(expected), rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: teacher_free_loss(z, label), logits.requires_grad_())


def test_partitioned_loss_is_cross_entropy_where_clean_and_mae_elsewhere():
    logits, label = _logits()
    is_clean = torch.arange(7) % 3 == 0
    expected = []
    for number, (row, y) in enumerate(_rows(logits, label)):
        prob = softmax(row)[y]
        expected.append(-math.log(prob) if number % 3 == 0 else 1 - prob)
    assert partitioned_loss(logits, label, is_clean).item() == pytest.approx(mean(expected), rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: partitioned_loss(z, label, is_clean), logits.requires_grad_())
    with refused("is_clean", "(7,)", "bool", "int64", error=ValueError):
        partitioned_loss(logits, label, label)


def test_entropy_and_divergence_equal_their_definitions():
    logits, _ = _logits()
    probs = [softmax(row) for row in logits.tolist()]
    entropies = [-sum(p * math.log(p) for p in row) for row in probs]
    assert prediction_entropy(logits).tolist() == pytest.approx(entropies, rel=1e-12)
    means = [mean(column) for column in zip(*probs, strict=True)]
    divergence = sum(0.25 * math.log(0.25 / m) for m in means)
    assert uniform_divergence(logits).item() == pytest.approx(divergence, rel=1e-12)
    extreme = torch.tensor([[1000.0, 0.0], [2000.0, -1.0]], requires_grad=True)
    (prediction_entropy(extreme).sum() + uniform_divergence(extreme)).backward()
    assert extreme.grad.isfinite().all()


def test_label_smoothing_is_cross_entropy_against_smoothed_labels(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoCoOpLS", tiny_clip_path, tmp_path, "TRAINER.LS.ALPHA", 0.3)
    logits, label = _logits()
    expected = []
    for row, y in _rows(logits, label):
        probs = softmax(row)
        expected.append(-sum((0.7 * (c == y) + 0.3 / 4) * math.log(p) for c, p in enumerate(probs)))
    for trainer.epoch in (0, 1):
        assert trainer.criterion(logits, _batch(logits, label)).item() == pytest.approx(mean(expected), rel=1e-6)


def test_teacher_free_trainer_uses_its_settings(tiny_run, tiny_clip_path, tmp_path):
    node = ("TRAINER.TFKD.ALPHA", 0.4, "TRAINER.TFKD.TEMPERATURE", 5.0, "TRAINER.TFKD.MULTIPLIER", 3.0)
    trainer = tiny_run("CoOpTFKD", tiny_clip_path, tmp_path, *node)
    logits, label = _logits()
    assert torch.equal(
        trainer.criterion(logits, _batch(logits, label)), teacher_free_loss(logits, label, 0.4, 5.0, 3.0)
    )


def _record_steps(trainer, keys=("label",)):
    """Return a list that fills with (epoch, logits, *keys of the batch) of every training step."""
    steps, loss = [], trainer.criterion

    def recording(logits, batch):
        steps.append((trainer.epoch, logits.detach().clone(), *(batch[key] for key in keys)))
        return loss(logits, batch)

    trainer.criterion = recording
    return steps


def test_online_labels_are_the_mean_correct_predictions_of_the_epoch_before(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOpOLS", tiny_clip_path, tmp_path, "TRAINER.OLS.A", 0.3, "OPTIM.MAX_EPOCH", 3)
    steps = _record_steps(trainer)
    trainer.train()
    labels = [[0.25] * 4 for _ in range(4)]
    for epoch in range(3):
        expected, correct = [], [[] for _ in range(4)]
        for _, logits, label in (step for step in steps if step[0] == epoch):
            losses = []
            for row, y in _rows(logits, label):
                probs = softmax(row)
                soft = -sum(weight * math.log(p) for weight, p in zip(labels[y], probs, strict=True))
                losses.append(0.3 * -math.log(probs[y]) + 0.7 * soft)
                if row.index(max(row)) == y:
                    correct[y].append(probs)
            expected.append(mean(losses))
        assert trainer.report["history"][epoch]["train_loss"] == pytest.approx(mean(expected), rel=1e-4)
        labels = [[mean(column) for column in zip(*rows, strict=True)] if rows else [0.25] * 4 for rows in correct]
        assert any(correct)
    torch.testing.assert_close(trainer._class_labels, torch.tensor(labels), rtol=1e-4, atol=1e-6)


def _slow_sinkhorn(log_probs, reg, iterations):
    """Return the plan from Sinkhorn's iterations on logarithms, in Python loops."""
    cost = [[-value for value in row] for row in log_probs.tolist()]
    count, classes = len(cost), len(cost[0])
    f, g = [0.0] * count, [0.0] * classes

    def soft_minimum(values):
        low = min(values)
        return low - reg * math.log(sum(math.exp((low - value) / reg) for value in values))

    for _ in range(iterations):
        f = [soft_minimum([cost[i][c] - g[c] for c in range(classes)]) - reg * math.log(count) for i in range(count)]
        g = [soft_minimum([cost[i][c] - f[i] for i in range(count)]) - reg * math.log(classes) for c in range(classes)]
    return [[math.exp((f[i] + g[c] - cost[i][c]) / reg) for c in range(classes)] for i in range(count)]


@pytest.mark.parametrize(("reg", "iterations"), [(1.0, 50), (0.1, 400), (0.01, 3000)])
def test_transport_plan_is_what_sinkhorns_iterations_converge_to(reg, iterations):
    log_probs = _logits(10, 3, scale=1.0)[0].log_softmax(dim=1)
    plan = transport_plan(log_probs, reg)
    np.testing.assert_allclose(plan, _slow_sinkhorn(log_probs, reg, iterations), atol=2e-5)
    np.testing.assert_allclose(plan.sum(axis=1), 0.1, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 3, rtol=1e-3)


def test_nlprompt_is_clean_where_transport_and_label_agree(tiny_run, tiny_clip_path, tmp_path, capsys):
    from dspt_atlas.datasets.noisy import register_noisy

    register_noisy()
    noise = ("DATASET.NAME", "NoisyTinyImages", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
    trainer = tiny_run("CoOpNLPrompt", tiny_clip_path, tmp_path, *noise, *CACHED)
    steps, partitions = _record_steps(trainer, ("label", "index")), []
    report = trainer.report_partition
    trainer.report_partition = lambda is_clean: (
        partitions.append((trainer.training_logits(), is_clean)) or report(is_clean)
    )
    trainer.train()
    given = [item.label for item in trainer.dm.dataset.train_x]
    for epoch, (logits, is_clean) in enumerate(partitions):
        plan = _slow_sinkhorn(logits.double().log_softmax(dim=1), 0.01, 2000)
        expected = [row.index(max(row)) == y for row, y in zip(plan, given, strict=True)]
        assert is_clean.tolist() == expected
        losses = []
        for _, rows, label, index in (step for step in steps if step[0] == epoch):
            probs = [softmax(row)[y] for row, y in _rows(rows, label)]
            losses.append(
                mean(-math.log(p) if expected[i] else 1 - p for p, i in zip(probs, index.tolist(), strict=True))
            )
        entry = trainer.report["history"][epoch]
        assert entry["train_loss"] == pytest.approx(mean(losses), rel=1e-4)
        assert entry["judged_clean"] == pytest.approx(100 * mean(expected))
        both = (entry["right_judged_clean"] + entry["wrong_judged_clean"]) / 2  # half of the labels are wrong
        assert both == pytest.approx(entry["judged_clean"])
    assert len(partitions) == 2
    assert "epoch [2/2]" in capsys.readouterr().out


def test_training_logits_are_those_of_the_images_under_the_test_transform(tiny_run, tiny_clip_path, tmp_path):
    from dassl.utils import read_image

    trainer = tiny_run("CoOpNLPrompt", tiny_clip_path, tmp_path)
    trainer.train()
    transform = trainer.test_loader.dataset.transform
    images = torch.stack([transform(read_image(item.impath)) for item in trainer.dm.dataset.train_x])
    torch.testing.assert_close(trainer.training_logits(), trainer.model(images).logits.detach(), rtol=1e-4, atol=1e-4)


def _density(weight, mean, variance, x):
    return weight * math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def _slow_mixture(losses):
    """Return weights, means, variances of two Gaussians after at most 10 EM steps that start from two-means."""
    centres = [min(losses), max(losses)]
    for _ in range(100):
        nearest = [abs(loss - centres[0]) > abs(loss - centres[1]) for loss in losses]
        centres = [mean(loss for loss, own in zip(losses, nearest, strict=True) if own == k) for k in (0, 1)]
    parts, previous = [[float(own == k) for own in nearest] for k in (0, 1)], -math.inf
    components = _maximise(losses, parts)
    for _ in range(10):
        densities = [[_density(*component, loss) for loss in losses] for component in components]
        totals = [sum(pair) for pair in zip(*densities, strict=True)]
        parts = [[d / total for d, total in zip(row, totals, strict=True)] for row in densities]
        components = _maximise(losses, parts)
        likelihood = mean(math.log(total) for total in totals)
        if abs(likelihood - previous) < 1e-2:
            break
        previous = likelihood
    return components


def _maximise(losses, parts):
    components = []
    for part in parts:
        total = sum(part)
        centre = sum(p * loss for p, loss in zip(part, losses, strict=True)) / total
        variance = sum(p * (loss - centre) ** 2 for p, loss in zip(part, losses, strict=True)) / total + 5e-4
        components.append((total / len(losses), centre, variance))
    return components


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.9])
def test_partition_equals_a_slow_mixture(threshold):
    generator = np.random.default_rng(0)
    losses = np.concatenate([generator.normal(0.2, 0.08, 40), generator.normal(0.6, 0.15, 25)]).clip(0, 1)
    low, high = _slow_mixture(losses.tolist())
    posterior = [_density(*low, x) / (_density(*low, x) + _density(*high, x)) for x in losses]
    grid = np.linspace(low[1], high[1], 100_001)
    edge = next(x for x in grid if _density(*low, x) <= _density(*high, x))
    is_clean, found = joapr.split_by_mixture(losses, threshold, seed=3)
    np.testing.assert_allclose(found, posterior, atol=1e-6)
    assert is_clean.tolist() == [x < edge or w > threshold for x, w in zip(losses, posterior, strict=True)]
    assert joapr.crossing(*zip(low, high, strict=True)) == pytest.approx(edge, abs=1e-5)
    assert 0 < is_clean.sum() < len(losses)


def test_gaussians_that_do_not_cross_between_their_means_have_no_crossing():
    assert joapr.crossing((0.999, 0.001), (0.0, 0.1), (1.0, 1.0)) == -math.inf
    assert joapr.crossing((0.5, 0.5), (0.0, 1.0), (0.2, 0.2)) == pytest.approx(0.5)
    equal, _ = joapr.split_by_mixture(np.zeros(6), 0.5, seed=0)
    assert equal.all() or not equal.any()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_batches_pair_all_clean_with_noisy_samples(is_clean, batch_size, seed):
    batches = joapr.paired_batches(np.array(is_clean), batch_size, seed)
    counts = {True: is_clean.count(True), False: is_clean.count(False)}
    assert len(batches) == math.ceil(max(counts.values()) / batch_size)
    for kind, count in counts.items():
        seen = [[index for index in batch if is_clean[index] == kind] for batch in batches]
        assert all(len(part) <= batch_size and len(set(part)) == len(part) for part in seen)
        assert all(len(part) > 0 for part in seen) == (count > 0)
        assert len({index for part in seen for index in part}) == count
    assert batches == joapr.paired_batches(np.array(is_clean), batch_size, seed)


def test_mixing_takes_most_of_the_first_and_keeps_features_normalised(monkeypatch):
    monkeypatch.setattr(joapr, "MIXUP_BETA", 2.0)  # at 0.001 nearly every share is 1
    labels = torch.eye(5)
    images = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    mixed, mixed_labels = joapr.mix_up(images, labels, seed=1)
    share = mixed_labels.diagonal().min().item()
    assert 0.5 <= share < 1
    for row, label_row, image in zip(mixed, mixed_labels, images, strict=True):
        partner = images[label_row.argsort()[-2]] if label_row.max() < 1 else image
        torch.testing.assert_close(row, share * image + (1 - share) * partner)
    features = F.normalize(images.flatten(1), dim=1)
    mixed_features, _ = joapr.mix_up(features, labels, seed=1)
    torch.testing.assert_close(mixed_features.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(mixed_features, F.normalize(mixed_labels @ features, dim=1))


class SlowJoAPR:
    """JoAPR's partition and labels in loops; the mixture itself is compared above."""

    def __init__(self, trainer):
        self.trainer, self.history, self.threshold, self.partitions = trainer, [], 0.5, []

    def divide(self):
        logits, losses = self.trainer.training_logits(), []
        for row, item in zip(logits.tolist(), self.trainer.dm.dataset.train_x, strict=True):
            probs = softmax(row)
            losses.append(-math.log(probs[item.label]) - sum(p * math.log(p) for p in probs))
        self.history.append([(loss - min(losses)) / (max(losses) - min(losses)) for loss in losses])
        average = np.array([mean(column) for column in zip(*self.history[-5:], strict=True)])
        seed = self.trainer._seed("mixture")
        self.is_clean, self.posterior = joapr.split_by_mixture(average, self.threshold, seed)
        self.partitions.append(self.is_clean.tolist())
        self.threshold = self.partitions[-1].count(False) / len(losses)

    def soft_labels(self, batch):
        epoch, index = self.trainer.epoch, batch["index"].tolist()
        features = self.trainer._two_views._first.features  # (V, N, d)
        views = [torch.tensor(features[view][index]) for view in (epoch, (epoch + 4) % 8)]
        with torch.no_grad():
            first, second = ([softmax(row) for row in self.trainer.model(view).logits.tolist()] for view in views)
        labels = []
        for i, y, *pair in zip(index, batch["label"].tolist(), first, second, strict=True):
            prediction = [mean(column) for column in zip(*pair, strict=True)]
            weight = self.posterior[i] * (prediction[y] if epoch >= 2 else 1) if self.is_clean[i] else 0
            mixed = [weight * (c == y) + (1 - weight) * p for c, p in enumerate(prediction)]
            labels.append([value**2 / sum(other**2 for other in mixed) for value in mixed])
        return labels


def test_joapr_warms_up_and_then_refurbishes_labels(tiny_run, tiny_clip_path, tmp_path, monkeypatch):
    monkeypatch.setattr(joapr, "mix_up", lambda images, labels, seed: (images, labels))
    alphas = ("TRAINER.JOAPR.ALPHA_1", 0.2, "TRAINER.JOAPR.ALPHA_2", 0.7)
    trainer = tiny_run("CoOpJoAPR", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 8, *CACHED, *alphas)
    slow, loss, divide, epochs = SlowJoAPR(trainer), trainer.criterion, trainer._divide, []

    def check_loss(logits, batch):
        probs = [softmax(row) for row in logits.tolist()]
        if trainer.epoch == 0:
            pairs = zip(probs, batch["label"].tolist(), strict=True)
            expected = mean(-math.log(row[y]) + 0.2 * sum(p * math.log(p) for p in row) for row, y in pairs)
        else:
            soft = slow.soft_labels(batch)
            torch.testing.assert_close(batch["soft"].double(), torch.tensor(soft).double(), rtol=1e-3, atol=1e-4)
            pairs = zip(soft, probs, strict=True)
            expected = mean(-sum(t * math.log(p) for t, p in zip(*pair, strict=True)) for pair in pairs)
            means = [mean(column) for column in zip(*probs, strict=True)]
            expected += 0.7 * sum(0.25 * math.log(0.25 / m) for m in means)
        epochs.append(trainer.epoch)
        value = loss(logits, batch)
        assert value.item() == pytest.approx(expected, rel=1e-3)
        return value

    def check_partition():
        slow.divide()
        is_clean = divide()
        assert is_clean.tolist() == slow.is_clean.tolist()
        return is_clean

    trainer.criterion, trainer._divide = check_loss, check_partition
    trainer.train()
    for epoch, is_clean in enumerate(slow.partitions, start=1):
        larger = max(is_clean.count(True), is_clean.count(False))
        assert epochs.count(epoch) == math.ceil(larger / 8)
        assert trainer.report["history"][epoch]["judged_clean"] == pytest.approx(100 * mean(is_clean))
    assert epochs.count(0) == 3
    assert len(slow.partitions) == 7
    assert any(0 < sum(is_clean) < 24 for is_clean in slow.partitions)


@pytest.mark.parametrize("options", [(), CACHED])
def test_joapr_sees_two_views_of_each_image(options, tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOpJoAPR", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 2, *options)
    trainer.train()
    views = trainer._two_views
    views.set_epoch(0)
    first = views[[3, 1]]
    views.set_epoch(1)
    second = views[[3, 1]]
    assert first["index"].tolist() == [3, 1]
    assert not torch.equal(first["img"], first["img2"])
    assert torch.equal(first["img"], second["img2"])
    assert torch.equal(first["img2"], second["img"])


@pytest.mark.parametrize(
    ("name", "options", "state"),
    [
        ("CoOpOLS", (), "ols_labels"),
        ("CoOpJoAPR", (), "joapr"),
        ("CoOpJoAPR", CACHED, "joapr"),
        ("CoOpNLPrompt", (), None),
    ],
)
def test_a_resumed_run_equals_the_whole_one(name, options, state, tiny_run, tiny_clip_path, tmp_path):
    folder = tmp_path / "run"
    settings = ("OPTIM.MAX_EPOCH", 4, "TRAIN.CHECKPOINT_FREQ", 1, *options)
    whole = tiny_run(name, tiny_clip_path, folder, *settings)
    whole.train()
    checkpoints = folder / whole.model_name
    (checkpoints / "checkpoint").write_text("model.pth.tar-2\n")
    saved = torch.load(checkpoints / "model.pth.tar-2", weights_only=True)["extra_state"]
    assert state is None or state in saved
    resumed = tiny_run(name, tiny_clip_path, folder, *settings)
    resumed.train()
    for first, second in zip(resumed.report["history"], whole.report["history"], strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    prompts, expected = (trainer.model.prompt_learner.state_dict() for trainer in (resumed, whole))
    assert all(torch.equal(prompts[key], expected[key]) for key in expected)
    assert resumed.results == whole.results


def test_zero_shot_with_the_ensemble_averages_the_data_sets_template_and_seven_more(tiny_run, tiny_clip_path, tmp_path):
    import clip

    def unit(features):
        return features / features.norm(dim=-1, keepdim=True)

    trainer = tiny_run("ZeroshotCLIP", tiny_clip_path, tmp_path, "TRAINER.ZEROSHOT.TEMPLATE", "ensemble")
    model, names = trainer.model.clip_model, [name.replace("_", " ") for name in trainer.dm.dataset.classnames]
    templates = ["a photo of a {}.", *ENSEMBLE]
    assert len(set(templates)) == 8 and all(template.count("{}") == 1 for template in templates)
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    with torch.no_grad():
        text = [
            unit(sum(unit(model.encode_text(clip.tokenize(template.format(name))))[0] for template in templates) / 8)
            for name in names
        ]
        expected = model.logit_scale.exp() * unit(model.encode_image(images)) @ torch.stack(text).T
        torch.testing.assert_close(trainer.model_inference(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "key", "value", "facts"),
    [
        ("CoOpLS", "TRAINER.LS.ALPHA", 1.5, ("LS.ALPHA", "(0, 1]", "1.5")),
        ("MaPLeTFKD", "TRAINER.TFKD.ALPHA", 0.0, ("TFKD.ALPHA", "(0, 1]", "0.0")),
        ("CoOpTFKD", "TRAINER.TFKD.TEMPERATURE", 0.0, ("TFKD.TEMPERATURE", "0.0")),
        ("CoCoOpOLS", "TRAINER.OLS.A", -0.1, ("OLS.A", "[0, 1]", "-0.1")),
        ("CoOpNLPrompt", "TRAINER.NLPROMPT.REG", 0.0, ("NLPROMPT.REG", "0.0")),
        ("CoOpJoAPR", "TRAINER.JOAPR.WARMUP", 2, ("WARMUP", "0 to 1", "OPTIM.MAX_EPOCH", "2")),
        ("CoOpJoAPR", "TRAINER.JOAPR.ALPHA_2", -1.0, ("ALPHA_2", "-1.0")),
        ("CoOpJoAPR", "INPUT.VIEWS", 1, ("INPUT.VIEWS",)),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(name, key, value, facts, tiny_run, tiny_clip_path, tmp_path):
    with refused(*facts):
        tiny_run(name, tiny_clip_path, tmp_path / "run", key, value)
    assert not (tmp_path / "run").exists()
