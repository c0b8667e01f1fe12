"""From a configuration to data loaders."""

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from dassl.utils import InvalidInputError, read_image

from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform

__all__ = ["DataManager", "DatasetWrapper", "build_data_loader"]


def build_data_loader(
    cfg,
    sampler_type="SequentialSampler",
    data_source=None,
    batch_size=64,
    n_domain=0,
    n_ins=2,
    tfm=None,
    is_train=True,
    dataset_wrapper=None,
    split=None,
):
    """Return a torch DataLoader over the items of `data_source`; `split` is named in the ValueError if it is empty."""
    if not data_source:
        raise _empty_split_error(cfg, split or ("training" if is_train else "evaluation"))
    sampler = build_sampler(
        sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
    )
    return DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )


def _empty_split_error(cfg, split):
    return InvalidInputError(
        f'The {split} split of data set "{cfg.DATASET.NAME}" has no items. Likely reasons: '
        f"DATASET.SUBSAMPLE_CLASSES ({cfg.DATASET.get('SUBSAMPLE_CLASSES', 'all')!r}) leaves no class, for example "
        '"new" of a data set with one class; or a split file or image folder without entries.'
    )


class DataManager:
    """The data set named in `cfg` and its loaders: train_loader_x, train_loader_u, val_loader, test_loader.

    If a split is empty, its loader is None. An empty `test` is accepted only with TEST.NO_TEST. Raises ValueError.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        self.dataset = build_dataset(cfg)
        tfm_train = _pick_transform(cfg, custom_tfm_train, "training", is_train=True)
        tfm_test = _pick_transform(cfg, custom_tfm_test, "testing", is_train=False)
        dataset, loaders = self.dataset, cfg.DATALOADER

        def train_loader(items, node, split):
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=items,
                batch_size=node.BATCH_SIZE,
                n_domain=node.N_DOMAIN,
                n_ins=node.N_INS,
                tfm=tfm_train,
                is_train=True,
                dataset_wrapper=dataset_wrapper,
                split=split,
            )

        def test_loader(items, split):
            return build_data_loader(
                cfg,
                sampler_type=loaders.TEST.SAMPLER,
                data_source=items,
                batch_size=loaders.TEST.BATCH_SIZE,
                tfm=tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
                split=split,
            )

        self.train_loader_x = train_loader(dataset.train_x, loaders.TRAIN_X, "train_x")
        node_u = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        self.train_loader_u = train_loader(dataset.train_u, node_u, "train_u") if dataset.train_u else None
        self.val_loader = test_loader(dataset.val, "val") if dataset.val else None
        skip_test = cfg.TEST.NO_TEST and not dataset.test
        self.test_loader = None if skip_test else test_loader(dataset.test, "test")

        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self):
        return self._num_classes

    @property
    def num_source_domains(self):
        return self._num_source_domains

    @property
    def lab2cname(self):
        return self._lab2cname

    def show_dataset_summary(self, cfg):
        """Print the table of class and item counts."""
        from tabulate import tabulate

        dataset = self.dataset
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        rows.append(["# train_x", f"{len(dataset.train_x):,}"])
        if dataset.train_u:
            rows.append(["# train_u", f"{len(dataset.train_u):,}"])
        if dataset.val:
            rows.append(["# val", f"{len(dataset.val):,}"])
        rows.append(["# test", f"{len(dataset.test or ()):,}"])
        print(tabulate(rows))


def _pick_transform(cfg, custom, purpose, is_train):
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    print(f"* Using custom transform for {purpose}")
    return custom


class DatasetWrapper(Dataset):
    """Items as dicts: label, domain, impath, index, img (img2, ... with several transforms; img0 with RETURN_IMG0).

    In training with K_TRANSFORMS above 1, each `img*` is a list of that many results.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"Cannot augment the image {self.k_tfm} times because transform is None")
        steps = [
            T.Resize(tuple(cfg.INPUT.SIZE), interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]),
            T.ToTensor(),
        ]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            steps.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(steps)

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, idx):
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        image = read_image(item.impath)
        if self.transform is None:
            output["img"] = image
        else:
            transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
            for number, transform in enumerate(transforms, start=1):
                output["img" if number == 1 else f"img{number}"] = self._transform_image(transform, image)
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output

    def _transform_image(self, transform, image):
        results = [transform(image) for _ in range(self.k_tfm)]
        return results if self.k_tfm > 1 else results[0]
