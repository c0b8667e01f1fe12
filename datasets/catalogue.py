"""The fifteen data sets of the CoOp family, as short declarations; the templates are CoOp's hand-written ones."""

from __future__ import annotations

import os
from pathlib import Path

from dspt_atlas.datasets.formats import (
    Item,
    Splits,
    class_folders,
    folder_images,
    is_image,
    read_lines,
    read_split_json,
    safe_join,
)
from dspt_atlas.datasets.reader import ImageDataset, SplitFileDataset, data_root
from dspt_atlas.errors import UserError


class Caltech101(SplitFileDataset):
    """Objects, 100 classes (Fei-Fei et al. 2004)."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"


class OxfordPets(SplitFileDataset):
    """Cat and dog breeds, 37 classes (Parkhi et al. 2012)."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    templates = ("a photo of a {}, a type of pet.",)


class StanfordCars(SplitFileDataset):
    """Car models, 196 classes (Krause et al. 2013)."""

    dataset_dir = "stanford_cars"
    split_file = "split_zhou_StanfordCars.json"


class OxfordFlowers(SplitFileDataset):
    """Flowers102, 102 classes (Nilsback and Zisserman 2008)."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    templates = ("a photo of a {}, a type of flower.",)


class Food101(SplitFileDataset):
    """Dishes, 101 classes (Bossard et al. 2014)."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    templates = ("a photo of {}, a type of food.",)


class SUN397(SplitFileDataset):
    """Scenes, 397 classes (Xiao et al. 2010)."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"


class DescribableTextures(SplitFileDataset):
    """DTD, 47 textures (Cimpoi et al. 2014)."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    templates = ("{} texture.",)


class EuroSAT(SplitFileDataset):
    """Satellite images, 10 kinds of land use (Helber et al. 2019)."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    templates = ("a centered satellite photo of {}.",)


class UCF101(SplitFileDataset):
    """Middle frames of videos of 101 actions (Soomro et al. 2012)."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    templates = ("a photo of a person doing {}.",)


class Food101N(ImageDataset):
    """Web images of Food101's classes, about a fifth wrongly labelled (Lee et al., CVPR 2018); Food101's test set.

    Folder `food-101n` with `images/<class>/` and `meta/imagelist.tsv`, or `Food-101N_release`, the archive's own name.
    """

    templates = Food101.templates

    @classmethod
    def expected_paths(cls, cfg):
        """Return its image folder and list, and Food101's image folder and split file."""
        root = data_root(cfg)
        choices = [root / "food-101n", root / "Food-101N_release", root / "food-101n" / "Food-101N_release"]
        folder = next((choice for choice in choices if (choice / "meta").is_dir()), choices[0])
        return [folder / "images", folder / "meta" / "imagelist.tsv", *Food101.expected_paths(cfg)]

    def read_splits(self, cfg):
        """Return the listed web images for training and the test images of Food101."""
        images, listing, food101_images, split_file = self.expected_paths(cfg)
        test = read_split_json(split_file, food101_images).test
        classes = {Path(item.impath).parent.name: item for item in test}
        train = []
        for line in read_lines(listing)[1:]:  # the first is the header "class_name/key"
            folder = line.split("/")[0]
            if folder not in classes:
                raise UserError(f'{listing}: "{line}" is not in a class of Food101')
            train.append(Item(safe_join(images, line, listing), classes[folder].label, classes[folder].classname))
        return Splits(train, [], test)


class FGVCAircraft(ImageDataset):
    """Aircraft variants, 100 classes (Maji et al. 2013); labels in the order of `variants.txt`."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    templates = ("a photo of a {}, a type of aircraft.",)

    @classmethod
    def expected_paths(cls, cfg):
        """Return the image folder, `variants.txt` and the three split lists."""
        folder = data_root(cfg) / cls.dataset_dir
        lists = [folder / f"images_variant_{split}.txt" for split in Splits._fields]
        return [folder / cls.image_dir, folder / "variants.txt", *lists]

    def read_splits(self, cfg):
        """Return the items of the lists, whose lines are "<image number> <variant>"."""
        images, variants, *lists = self.expected_paths(cfg)
        labels = {name: label for label, name in enumerate(read_lines(variants))}
        return Splits(*(self._read_list(path, images, labels) for path in lists))

    @staticmethod
    def _read_list(path, images, labels):
        items = []
        for line in read_lines(path):
            number, _, variant = line.partition(" ")
            if variant not in labels:
                raise UserError(f'{path}: "{line}" does not name a variant of variants.txt')
            items.append(Item(safe_join(images, f"{number}.jpg", path), labels[variant], variant))
        return items


class ImageNet(ImageDataset):
    """ImageNet-1k (Deng et al. 2009): labels in the order of the wnids, tested on the validation images.

    There is no validation split. CoOp uses the test images for it, which would select models on the test set.
    """

    dataset_dir = "imagenet"
    image_dir = "images"

    @classmethod
    def expected_paths(cls, cfg):
        """Return the train and val folders and `classnames.txt`."""
        folder = data_root(cfg) / cls.dataset_dir
        return [folder / cls.image_dir / "train", folder / cls.image_dir / "val", folder / "classnames.txt"]

    def read_splits(self, cfg):
        """Return the items of `train/<wnid>/` and `val/<wnid>/`."""
        train, val, names_file = self.expected_paths(cfg)
        names = read_classnames(names_file)
        wnids = class_folders(train)
        train_items = wnid_items(train, wnids, names)
        _check_sorted(val, wnids)
        return Splits(train_items, [], wnid_items(val, wnids, names))


class ImageNetVariant(ImageDataset):
    """A test set for models trained on ImageNet; class names from its own `classnames.txt` or ImageNet's.

    Labels count the existing wnids in ascending order, as in CoOp. If all 1,000 exist, the labels are ImageNet's.
    """

    test_only = True

    @classmethod
    def expected_paths(cls, cfg):
        """Return the image folder and the file of class names."""
        root = data_root(cfg)
        own = root / cls.dataset_dir / "classnames.txt"
        shared = root / ImageNet.dataset_dir / "classnames.txt"
        return [root / cls.dataset_dir / cls.image_dir, own if own.is_file() or not shared.is_file() else shared]

    def read_splits(self, cfg):
        """Return the items of `<wnid>/` as the test split."""
        images, names_file = self.expected_paths(cfg)
        names = read_classnames(names_file)
        self.source_classnames = [names[wnid] for wnid in sorted(names)]  # of ImageNet, in the order of its labels
        return Splits([], [], wnid_items(images, class_folders(images), names))


class ImageNetV2(ImageNetVariant):
    """Matched-frequency images (Recht et al. 2019), in folders named after ImageNet's class numbers, "0" to "999"."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"

    def read_splits(self, cfg):
        """Return the items of the numbered folders, one for each wnid of `classnames.txt` in ascending order."""
        images, names_file = self.expected_paths(cfg)
        names = read_classnames(names_file)
        numbers = {str(label): wnid for label, wnid in enumerate(sorted(names))}
        wrong = sorted(set(class_folders(images)) ^ numbers.keys())
        if wrong:
            raise UserError(f'{images}: expected folders "0" to "{len(names) - 1}"; "{wrong[0]}" is missing or unknown')
        return Splits([], [], wnid_items(images, numbers, {number: names[wnid] for number, wnid in numbers.items()}))


class ImageNetSketch(ImageNetVariant):
    """Sketches of the 1,000 classes (Wang et al. 2019)."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"


class ImageNetA(ImageNetVariant):
    """Natural adversarial images of 200 classes (Hendrycks et al. 2021)."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"


class ImageNetR(ImageNetVariant):
    """Renditions of 200 classes (Hendrycks et al. 2021)."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"


def read_classnames(path):
    """Return {wnid: class name} from lines such as "n01440764 tench"; raises UserError for other lines."""
    names = {}
    for line in read_lines(path):
        wnid, _, name = line.partition(" ")
        if not name.strip() or wnid in names:
            raise UserError(f'{path}: expected lines such as "n01440764 tench", each wnid once, but got "{line}"')
        names[wnid] = name.strip()
    return names


def _check_sorted(folder, wnids):
    """Raise UserError if the folder of a wnid is missing, as all are where ILSVRC's archive was only unpacked."""
    if not folder.is_dir() or not (missing := [wnid for wnid in wnids if not (folder / wnid).is_dir()]):
        return
    flat = sorted(filter(is_image, os.listdir(folder)))
    there = f"but {len(flat)} images lie there, such as {flat[0]}: " if flat else "which train has: "
    raise UserError(
        f"{folder} has no folder {missing[0]}, {there}put each image into the folder of its wnid, as in train"
    )


def wnid_items(folder, wnids, names):
    """Return the items of `folder/<wnid>/` for every wnid, labelled by its position in `wnids`."""
    unknown = [wnid for wnid in wnids if wnid not in names]
    if unknown:
        raise UserError(f'classnames.txt has no class name for the folder "{unknown[0]}" of {folder}')
    return [
        Item(impath, label, names[wnid]) for label, wnid in enumerate(wnids) for impath in folder_images(folder / wnid)
    ]


CATALOGUE = (
    ImageNet,
    Caltech101,
    OxfordPets,
    StanfordCars,
    OxfordFlowers,
    Food101,
    FGVCAircraft,
    SUN397,
    DescribableTextures,
    EuroSAT,
    UCF101,
    ImageNetV2,
    ImageNetSketch,
    ImageNetA,
    ImageNetR,
)
