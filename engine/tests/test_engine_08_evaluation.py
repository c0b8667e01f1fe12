"""CONTRACT.md, section 8: metrics and evaluation."""

import csv
import os

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.evaluation import Classification, build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix


def test_accuracy_for_any_k():  # F21
    logits = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.9, 0.0, 0.1]])
    target = torch.tensor([2, 0, 0, 1])
    top1, top3, top2 = compute_accuracy((logits, None), target, topk=(1, 3, 2))
    assert (top1.item(), top2.item(), top3.item()) == (25.0, 50.0, 100.0)
    assert top1.shape == (1,)
    assert compute_accuracy(logits, target)[0].item() == 25.0
    with pytest.raises(RuntimeError, match="5.*3"):
        compute_accuracy(logits, target, topk=(1, 5))


def test_distances_against_loops():
    a, b = torch.randn(4, 3), torch.randn(5, 3)
    squared = [[((x - y) ** 2).sum().item() for y in b] for x in a]
    cosine = [[1 - torch.cosine_similarity(x, y, dim=0).item() for y in b] for x in a]
    assert torch.allclose(compute_distance_matrix(a, b), torch.tensor(squared), atol=1e-5)
    assert torch.allclose(compute_distance_matrix(a, b, "cosine"), torch.tensor(cosine), atol=1e-5)
    with pytest.raises(ValueError, match='"euclidean".*"cosine"'):
        compute_distance_matrix(a, b, "city")
    with pytest.raises(AssertionError):
        compute_distance_matrix(a, torch.randn(5, 2))
    with pytest.raises(TypeError):
        compute_distance_matrix(a, [[1.0]])


def scores(predictions, classes):
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path / "new")
    cfg.TEST.PER_CLASS_RESULT = cfg.TEST.COMPUTE_CMAT = True
    return cfg


def test_golden_result_block(cfg, capsys):
    evaluator = build_evaluator(cfg, lab2cname={0: "cat", 1: "dog"})
    evaluator.process(scores([0, 1], 3), torch.tensor([0, 1]))
    evaluator.process(scores([2, 0], 3), torch.tensor([1, 2]))
    results = evaluator.evaluate()
    assert list(results.items()) == [
        ("accuracy", 50.0),
        ("error_rate", 50.0),
        ("macro_f1", 44.44444444444444),
        ("perclass_accuracy", 50.0),
    ]
    path = f"{cfg.OUTPUT_DIR}/cmat.pt"
    assert capsys.readouterr().out.splitlines() == [
        "Loading evaluator: Classification",
        "=> result",
        "* total: 4",
        "* correct: 2",
        "* accuracy: 50.0%",
        "* error: 50.0%",
        "* macro_f1: 44.4%",
        "=> per-class result",
        "* class: 0 (cat)\ttotal: 1\tcorrect: 1\tacc: 100.0%",
        "* class: 1 (dog)\ttotal: 2\tcorrect: 1\tacc: 50.0%",
        "* class: 2 (unknown)\ttotal: 1\tcorrect: 0\tacc: 0.0%",  # F50
        "* average: 50.0%",
        f"Confusion matrix is saved to {path}",
    ]
    matrix = torch.load(path, weights_only=True)  # F26
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    evaluator.reset()
    evaluator.process(scores([1], 3), torch.tensor([1]))
    assert evaluator.evaluate()["accuracy"] == 100.0


def test_against_scikit_learn(cfg):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 6, (300,), generator=generator)
    true[true == 4] = 1  # only predicted
    predicted = torch.where(
        torch.rand(300, generator=generator) < 0.5, true, torch.randint(0, 7, (300,), generator=generator)
    )
    evaluator = Classification(cfg, lab2cname={})
    evaluator.process(scores(predicted.tolist(), 7), true)
    results = evaluator.evaluate()
    macro = metrics.f1_score(true, predicted, average="macro", labels=true.unique())
    assert results["macro_f1"] == pytest.approx(100 * macro, rel=1e-12)
    assert results["accuracy"] == pytest.approx(100 * metrics.accuracy_score(true, predicted))
    matrix = torch.load(f"{cfg.OUTPUT_DIR}/cmat.pt", weights_only=True)
    assert torch.equal(matrix, torch.from_numpy(metrics.confusion_matrix(true, predicted, labels=range(7))))


def test_the_confusion_matrix_has_all_classes_with_their_names(cfg, capsys):
    names = {0: "cat", 1: '=HYPERLINK("x")', 2: "a, b\nc", 3: "never seen"}
    evaluator = Classification(cfg, lab2cname=names)
    evaluator.process(scores([2, 2, 0], 5), torch.tensor([2, 0, 0]))
    evaluator.evaluate()
    expected = [[1, 0, 1, 0, 0], [0] * 5, [0, 0, 1, 0, 0], [0] * 5, [0] * 5]
    assert torch.load(f"{cfg.OUTPUT_DIR}/cmat.pt", weights_only=True).tolist() == expected
    with open(f"{cfg.OUTPUT_DIR}/cmat.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == [*(f"{label} {name}" for label, name in names.items()), "4"]
    assert [[int(count) for count in row[1:]] for row in rows] == expected
    assert {*os.listdir(cfg.OUTPUT_DIR)} == {"cmat.pt", "cmat.csv"}


def test_first_maximum_wins_and_nothing_processed_is_an_error(cfg, capsys):
    evaluator = Classification(cfg, lab2cname={})
    with pytest.raises(ValueError):  # F19
        evaluator.evaluate()
    assert "=> result" not in capsys.readouterr().out
    evaluator.process(torch.zeros(2, 5), torch.tensor([0, 1]))
    assert evaluator.evaluate()["accuracy"] == 50.0
    with pytest.raises(AssertionError, match="lab2cname"):
        Classification(cfg)
