"""Classification results."""

import csv
import os
from collections import OrderedDict

import numpy as np
import torch

from dassl.utils import InvalidInputError, atomic_path, mkdir_if_missing

from .build import EVALUATOR_REGISTRY

__all__ = ["Classification", "EvaluatorBase"]


class EvaluatorBase:
    """Interface of evaluators: `reset`, then `process` per batch, then `evaluate`."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        """Forget everything processed."""
        raise NotImplementedError

    def process(self, mo, gt):
        """Add the model output and the ground truth of one batch."""
        raise NotImplementedError

    def evaluate(self):
        """Print the results and return them as an OrderedDict, the most important one first."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1; also accuracy per class and the confusion matrix if asked for."""

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise InvalidInputError("TEST.PER_CLASS_RESULT needs lab2cname, the class name of each label")
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self):
        """Forget everything processed."""
        self._y_true = []
        self._y_pred = []
        self._num_scores = 0

    def process(self, mo, gt):
        """Add scores (B, C) and labels (B,); the prediction is the first maximum."""
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(mo.argmax(dim=1).tolist())
        self._num_scores = max(self._num_scores, mo.shape[1])

    def evaluate(self):
        """Print and return accuracy, error_rate, macro_f1 (and perclass_accuracy), in percent.

        macro_f1 = mean over the labels that occur of 2 TP / (2 TP + FP + FN). Raises ValueError without samples.
        """
        if not self._y_true:
            raise ValueError("no samples were processed: the evaluated split or its data loader is empty")
        labels, confusion = self._confusion()
        matches, occurrences, predictions = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        total, correct = int(occurrences.sum()), int(matches.sum())
        present = occurrences > 0
        f1 = 2 * matches[present] / (occurrences + predictions)[present]
        results = OrderedDict()
        results["accuracy"] = 100.0 * correct / total
        results["error_rate"] = 100.0 - results["accuracy"]
        results["macro_f1"] = 100.0 * float(f1.mean())
        print("=> result")
        print(f"* total: {total:,}")
        print(f"* correct: {correct:,}")
        print(f"* accuracy: {results['accuracy']:.1f}%")
        print(f"* error: {results['error_rate']:.1f}%")
        print(f"* macro_f1: {results['macro_f1']:.1f}%")
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class(labels[present], occurrences[present], matches[present])
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion()
        return results

    def _confusion(self):
        """Return the sorted labels that occur or were predicted (L,), and counts (L, L); rows are the ground truth."""
        labels, indices = np.unique(np.concatenate([self._y_true, self._y_pred]), return_inverse=True)
        true, predicted = indices.reshape(2, -1)
        counts = np.bincount(true * len(labels) + predicted, minlength=len(labels) ** 2)
        return labels, counts.reshape(len(labels), len(labels))

    def _per_class(self, labels, occurrences, matches):
        print("=> per-class result")
        accuracies = 100.0 * matches / occurrences
        for label, total, correct, accuracy in zip(labels, occurrences, matches, accuracies):
            name = self._lab2cname.get(int(label), "unknown")
            print(f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {correct:,}\tacc: {accuracy:.1f}%")
        average = float(accuracies.mean())
        print(f"* average: {average:.1f}%")
        return average

    def _save_confusion(self):
        """Write counts (C, C) as cmat.pt (int64) and cmat.csv (with class names); rows are the ground truth."""
        highest = max(*self._y_true, *self._y_pred, *self._lab2cname, self._num_scores - 1)
        classes = highest + 1
        cells = np.asarray(self._y_true) * classes + np.asarray(self._y_pred)
        counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        fpath = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        with atomic_path(fpath) as temporary:
            torch.save(torch.from_numpy(counts), temporary)
        # A spreadsheet does not take a cell that starts with its label for a formula, whatever the name is.
        names = [f"{label} {self._lab2cname.get(label, '')}".rstrip() for label in range(classes)]
        table = os.path.join(self.cfg.OUTPUT_DIR, "cmat.csv")
        with atomic_path(table) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["true, then predicted", *names])
            writer.writerows([name, *row] for name, row in zip(names, counts.tolist()))
        print(f"Confusion matrix is saved to {fpath}")
