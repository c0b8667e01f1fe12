"""Figures of an evaluation."""

import sys
from collections import Counter

import torch


def classification_results(label, predicted, lab2cname):
    """Return accuracy, error_rate, macro_f1, per_class_accuracy {class name: percent}, total, correct.

    label and predicted: (N,) int64. Figures are in percent; macro_f1 is the mean of 2 TP / (2 TP + FP + FN) over the
    classes that occur in `label`. Classes with the same name are distinguished by their label.
    """
    label, predicted = label.cpu(), predicted.cpu()
    size = int(max(label.max(), predicted.max())) + 1
    occurrences, predictions = label.bincount(minlength=size), predicted.bincount(minlength=size)
    matches = label[label == predicted].bincount(minlength=size)
    present = occurrences.nonzero()[:, 0].tolist()
    total, correct = len(label), int(matches.sum())
    shared = Counter(lab2cname.values())
    names = {y: name if shared[name] == 1 else f"{name} ({y})" for y, name in lab2cname.items()}
    f1 = 2 * matches[present] / (occurrences + predictions)[present]
    return {
        "accuracy": 100 * correct / total,
        "error_rate": 100 - 100 * correct / total,
        "macro_f1": 100 * f1.double().mean().item(),
        "per_class_accuracy": {names[y]: 100 * int(matches[y]) / int(occurrences[y]) for y in present},
        "total": total,
        "correct": correct,
    }


def peak_memory_bytes(device):
    """Return the largest memory of this process so far: torch's allocations on a GPU, or resident memory.

    None on Windows without a GPU, because Python's module `resource` is not there.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
