"""Samplers that balance domains or classes within a batch."""

import random
from collections import defaultdict

import numpy as np
from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler

from dassl.utils import InvalidInputError

__all__ = [
    "RandomClassSampler",
    "RandomDomainSampler",
    "RandomSampler",
    "SeqDomainSampler",
    "SequentialSampler",
    "build_sampler",
]


def _group_indices(data_source, attribute):
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return groups


class _PlannedSampler(Sampler):
    """Plans each pass ahead, so that `len()` is the length of the next pass.

    `plan` is the next pass, or None if it is not drawn yet; it belongs to the state of a run.
    """

    def __init__(self, data_source):
        self.data_source = data_source

    def _draw_pass(self):
        """Return the indices of one pass."""
        raise NotImplementedError

    def _planned(self):
        if self.plan is None:
            self.plan = self._draw_pass()
        return self.plan

    def __iter__(self):
        plan, self.plan = self._planned(), None
        return iter(plan)

    def __len__(self):
        return len(self._planned())


class _DomainSampler(_PlannedSampler):
    """Draw an equal share from each of the chosen domains in each step."""

    def __init__(self, data_source, batch_size, domains, n_domain):
        super().__init__(data_source)
        if batch_size % n_domain != 0:
            raise InvalidInputError(f"batch_size={batch_size} must be divisible by the number of domains={n_domain}")
        self.batch_size = batch_size
        self.domains = domains
        self.n_domain = n_domain
        self.n_img_per_domain = batch_size // n_domain
        for domain, indices in self.domain_dict.items():
            if len(indices) < self.n_img_per_domain:
                raise InvalidInputError(
                    f"Domain {domain} has {len(indices)} items, fewer than its share of {self.n_img_per_domain} in a "
                    f"batch of {batch_size} from {n_domain} domains: use a smaller batch"
                )
        self.plan = self._draw_pass()

    @property
    def domain_dict(self):
        return _group_indices(self.data_source, "domain")

    def _choose_domains(self):
        raise NotImplementedError

    def _draw_pass(self):
        remaining = self.domain_dict
        share, indices = self.n_img_per_domain, []
        while True:
            chosen = self._choose_domains()
            for domain in chosen:
                drawn = random.sample(remaining[domain], share)
                indices.extend(drawn)
                taken = set(drawn)
                remaining[domain] = [index for index in remaining[domain] if index not in taken]
            if any(len(remaining[domain]) < share for domain in chosen):
                return indices


class RandomDomainSampler(_DomainSampler):
    """Draw `n_domain` domains at random in each step (`n_domain <= 0` or None: all), with equal shares of the batch."""

    def __init__(self, data_source, batch_size, n_domain):
        domains = list(_group_indices(data_source, "domain"))
        n_domain = n_domain if n_domain is not None and n_domain > 0 else len(domains)
        if n_domain > len(domains):
            raise InvalidInputError(f"n_domain={n_domain} must not exceed the number of domains, {len(domains)}")
        super().__init__(data_source, batch_size, domains, n_domain)

    def _choose_domains(self):
        return random.sample(self.domains, self.n_domain)


class SeqDomainSampler(_DomainSampler):
    """Take an equal share from every domain, in sorted order, in each step."""

    def __init__(self, data_source, batch_size):
        domains = sorted(_group_indices(data_source, "domain"))
        super().__init__(data_source, batch_size, domains, len(domains))

    def _choose_domains(self):
        return self.domains


class RandomClassSampler(_PlannedSampler):
    """Draw `batch_size // n_ins` classes in each step, and `n_ins` items of each."""

    def __init__(self, data_source, batch_size, n_ins):
        super().__init__(data_source)
        if batch_size < n_ins:
            raise InvalidInputError(f"batch_size={batch_size} must be no less than n_ins={n_ins}")
        self.batch_size = batch_size
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        n_classes = len(_group_indices(data_source, "label"))
        if n_classes < self.ncls_per_batch:
            raise InvalidInputError(
                f"batch_size={batch_size} with n_ins={n_ins} needs {self.ncls_per_batch} classes, but there are "
                f"{n_classes}"
            )
        self.plan = self._draw_pass()

    def _draw_groups(self):
        groups = {}
        for label, indices in _group_indices(self.data_source, "label").items():
            if len(indices) < self.n_ins:
                indices = np.random.choice(indices, size=self.n_ins, replace=True).tolist()
            random.shuffle(indices)
            last = len(indices) - self.n_ins
            groups[label] = [indices[start : start + self.n_ins] for start in range(0, last + 1, self.n_ins)]
        return groups

    def _draw_pass(self):
        groups = self._draw_groups()
        classes, indices = list(groups), []
        while len(classes) >= self.ncls_per_batch:
            for label in random.sample(classes, self.ncls_per_batch):
                indices.extend(groups[label].pop(0))
                if not groups[label]:
                    classes.remove(label)
        return indices


def build_sampler(sampler_type, cfg=None, data_source=(), batch_size=32, n_domain=0, n_ins=16):
    """Return the sampler of that name over `data_source` (kept as its attribute `data_source`); raises ValueError."""
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(data_source, batch_size, n_ins)
    raise InvalidInputError(
        f"Unknown sampler type: {sampler_type}; use RandomSampler, SequentialSampler, RandomDomainSampler, "
        "SeqDomainSampler or RandomClassSampler"
    )
