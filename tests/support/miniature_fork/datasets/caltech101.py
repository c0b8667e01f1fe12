"""The fork's own reader under a name that dspt-atlas has too."""

import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import listdir_nohidden


@DATASET_REGISTRY.register()
class Caltech101(DatasetBase):
    dataset_dir = "tiny"

    def __init__(self, cfg):
        folder = os.path.join(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)), self.dataset_dir)
        train, val, test = (self.read_split(os.path.join(folder, split)) for split in ("train", "val", "test"))
        if cfg.DATASET.NUM_SHOTS >= 1:
            train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
        train, val, test = (self.subsample(split, cfg.DATASET.SUBSAMPLE_CLASSES) for split in (train, val, test))
        super().__init__(train_x=train, val=val, test=test)

    @staticmethod
    def read_split(folder):
        return [
            Datum(impath=os.path.join(folder, classname, name), label=label, classname=classname)
            for label, classname in enumerate(sorted(listdir_nohidden(folder)))
            for name in sorted(listdir_nohidden(os.path.join(folder, classname)))
        ]

    @staticmethod
    def subsample(items, classes):
        middle = (max(item.label for item in items) + 2) // 2
        kept = [item for item in items if classes == "all" or (item.label < middle) == (classes == "base")]
        first = 0 if classes != "new" else middle
        return [Datum(impath=item.impath, label=item.label - first, classname=item.classname) for item in kept]
