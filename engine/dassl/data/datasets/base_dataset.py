"""Items and data sets."""

import os
import random
import shutil
import warnings
from collections import Counter, defaultdict
from typing import ClassVar

from dassl.utils import InvalidInputError

__all__ = ["DatasetBase", "Datum"]


class Datum:
    """One item: image path, integer label, domain index, class name.

    Few-shot caches are pickled lists of these: the attribute names below and this module's path are part of the format.
    Raises TypeError if `impath` is not a str, FileNotFoundError if it is not a file.
    """

    # Defaults for items in pickles of other versions.
    _impath, _label, _domain, _classname = "", 0, 0, ""

    def __init__(self, impath="", label=0, domain=0, classname=""):
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a str, but got {type(impath).__name__}")
        if not os.path.isfile(impath):
            raise FileNotFoundError(f'No file found at "{impath}"')
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self):
        return self._impath

    @property
    def label(self):
        return self._label

    @property
    def domain(self):
        return self._domain

    @property
    def classname(self):
        return self._classname


def _require_items(data_source):
    if not data_source:
        raise InvalidInputError(
            "train_x is empty: a data set needs at least one labelled training item, even for evaluation"
        )


class DatasetBase:
    """Splits `train_x`, `train_u`, `val`, `test` (lists of `Datum`) and their class names.

    `lab2cname` overrides the names found in `train_x`, for data whose labels are wrong on purpose.
    Raises ValueError for an empty `train_x` and for labels without a class name.
    """

    dataset_dir = ""
    domains: ClassVar[list] = []

    def __init__(self, train_x=None, train_u=None, val=None, test=None, *, lab2cname=None):
        self._train_x = train_x or []
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        if lab2cname is None:
            self._lab2cname, _ = self.get_lab2cname(train_x)
        else:
            self._lab2cname = dict(lab2cname)
            self._num_classes = max(self._num_classes, max(self._lab2cname) + 1)
        self._fill_missing_names()
        self._classnames = list(self._lab2cname.values())

    def _fill_missing_names(self):
        """Name the labels that `train_x` lacks by the items of `val` and `test`; raises ValueError if that fails."""
        others = [item for split in (self._val, self._test) for item in split or ()]
        others = [item for item in others if 0 <= item.label < self._num_classes and item.label not in self._lab2cname]
        if others:
            self._lab2cname.update(self.get_lab2cname(others)[0])
        # Not all of them: a label of 10**11 would need as many.
        labels = range(min(self._num_classes, len(self._lab2cname) + 5))
        if still_missing := [label for label in labels if label not in self._lab2cname]:
            raise InvalidInputError(
                f"Labels must cover 0 to {self._num_classes - 1}, but no item has the class name of {still_missing}: "
                "renumber the labels or pass lab2cname"
            )
        self._lab2cname = dict(sorted(self._lab2cname.items()))

    @property
    def train_x(self):
        return self._train_x

    @property
    def train_u(self):
        return self._train_u

    @property
    def val(self):
        return self._val

    @property
    def test(self):
        return self._test

    @property
    def lab2cname(self):
        return self._lab2cname

    @property
    def classnames(self):
        return self._classnames

    @property
    def num_classes(self):
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source):
        """Return the highest label plus one; raises ValueError without items."""
        _require_items(data_source)
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source):
        """Return `({label: class name}, [class names])` in ascending label order.

        A label with several names gets its most frequent one (the first among equals), with one warning.
        """
        _require_items(data_source)
        names = defaultdict(Counter)
        for item in data_source:
            names[item.label][item.classname] += 1
        ambiguous = sorted(label for label, counts in names.items() if len(counts) > 1)
        if ambiguous:
            warnings.warn(f"Labels {ambiguous} have several class names; the most frequent one is used", stacklevel=2)
        mapping = {label: names[label].most_common(1)[0][0] for label in sorted(names)}
        return mapping, list(mapping.values())

    def check_input_domains(self, source_domains, target_domains):
        """Raise unless both lists are non-empty and hold only known domains."""
        if not source_domains:
            raise InvalidInputError("source_domains (list) is empty")
        if not target_domains:
            raise InvalidInputError("target_domains (list) is empty")
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains):
        """Raise ValueError for a domain that is not one of `self.domains`."""
        for domain in input_domains:
            if domain not in self.domains:
                raise ValueError(f"Input domain must belong to {self.domains}, but got [{domain}]")

    def generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False):
        """Draw `num_shots` items per label, with Python's `random`, from each source.

        A label with fewer items keeps all of them; with `repeat`, they are drawn with repetition. Returns a list for
        one source, and a list of lists for several. `num_shots < 1` returns the sources themselves.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        outputs = []
        for data_source in data_sources:
            chosen = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    chosen.extend(random.sample(items, num_shots))
                elif repeat:
                    chosen.extend(random.choices(items, k=num_shots))
                else:
                    chosen.extend(items)
            outputs.append(chosen)
        return outputs[0] if len(outputs) == 1 else outputs

    def split_dataset_by_label(self, data_source):
        """Return `{label: [items]}`, labels in order of first appearance."""
        return _group(data_source, "label")

    def split_dataset_by_domain(self, data_source):
        """Return `{domain: [items]}`, domains in order of first appearance."""
        return _group(data_source, "domain")

    def download_data(self, url, dst, from_gdrive=True):
        """Download an archive from Google Drive to `dst` and extract it in the same folder; needs the package gdown."""
        if not from_gdrive:
            raise NotImplementedError("only downloads from Google Drive are supported: fetch other files by hand")
        import gdown  # pyright: ignore[reportMissingImports] - optional: the extra "drive"

        directory = os.path.dirname(dst)
        os.makedirs(directory or ".", exist_ok=True)
        gdown.download(url, dst, quiet=False)
        print("Extracting file ...")
        extract_archive(dst, directory or ".")
        print(f"File extracted to {directory}")


def _group(data_source, attribute):
    groups = defaultdict(list)
    for item in data_source:
        groups[getattr(item, attribute)].append(item)
    return groups


def extract_archive(fpath, directory):
    """Extract a .zip, .tar or .tar.gz archive; members that would leave `directory` are not extracted."""
    if fpath.endswith(".zip"):
        shutil.unpack_archive(fpath, directory)
    elif fpath.endswith((".tar", ".tar.gz")):
        shutil.unpack_archive(fpath, directory, filter="data")
    else:
        raise NotImplementedError(f'Cannot extract "{fpath}": use a .zip, .tar or .tar.gz file')
