"""CONTRACT.md, section 6.6: samplers."""

import copy
import random

import pytest

from dassl.data.samplers import build_sampler
from dassl.utils import set_random_seed

GOLDEN = [  # section 17: name, batch size, n_domain, n_ins, pass
    ("RandomDomainSampler", 6, 2, 0, "12 0 9 23 11 17 4 10 1 18 21 15"),
    (
        "RandomDomainSampler",
        6,
        0,
        0,
        "3 9 23 11 19 22 0 15 14 17 1 10 13 4 6 21 2 5 8 20 18 12 7 16",
    ),
    ("SeqDomainSampler", 6, 0, 0, "6 12 4 7 5 11 15 21 22 16 8 2 18 0 19 10 14 20 9 3 1 13 23 17"),
    ("RandomClassSampler", 4, 0, 2, "10 22 23 7 1 5 18 14 8 12 9 17 20 0 11 3 16 4 2 6 21 13 19 15"),
]


@pytest.fixture
def items(make_items):
    return make_items([i % 4 for i in range(24)], domains=[i % 3 for i in range(24)])


@pytest.mark.parametrize(("name", "batch_size", "n_domain", "n_ins", "expected"), GOLDEN)
def test_golden_passes(items, name, batch_size, n_domain, n_ins, expected):
    set_random_seed(1)
    sampler = build_sampler(name, data_source=items, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins)
    assert sampler.data_source is items
    assert " ".join(map(str, sampler)) == expected


@pytest.mark.parametrize(("name", "batch_size", "n_domain", "n_ins", "expected"), GOLDEN)
def test_length_is_that_of_the_coming_pass(items, name, batch_size, n_domain, n_ins, expected):  # F28
    set_random_seed(1)
    sampler = build_sampler(name, data_source=items, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins)
    lengths = []
    for _ in range(20):
        lengths.append(len(sampler))
        assert lengths[-1] == len(list(sampler))
    assert lengths[0] == len(expected.split())
    if name == "RandomClassSampler":
        assert lengths[1] == 20
    assert len(copy.deepcopy(sampler)) == len(list(sampler))


def test_later_passes_match_the_algorithm_from_the_state_they_start_in(items):
    sampler = build_sampler("RandomDomainSampler", data_source=items, batch_size=6, n_domain=2)
    for _ in sampler:  # list() would ask for the length of the next pass
        pass
    set_random_seed(1)
    assert " ".join(map(str, sampler)) == GOLDEN[0][-1]


def test_small_classes_are_filled_up_with_numpy(make_items):
    items = make_items([0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2])
    set_random_seed(1)
    sampler = build_sampler("RandomClassSampler", data_source=items, batch_size=6, n_ins=3)
    assert list(sampler) == [1, 0, 1, 7, 8, 9]


def test_torch_samplers(items):
    set_random_seed(1)
    assert list(build_sampler("RandomSampler", data_source=items[:8])) == [6, 5, 4, 7, 3, 1, 0, 2]
    state = random.getstate()
    assert list(build_sampler("SequentialSampler", data_source=items)) == list(range(24))
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Nothing", {}, "Unknown sampler type: Nothing"),
        ("RandomDomainSampler", {"batch_size": 5, "n_domain": 2}, "must be divisible"),
        ("RandomDomainSampler", {"batch_size": 8, "n_domain": 4}, "must not exceed the number of domains, 3"),
        ("RandomDomainSampler", {"batch_size": 60}, "Domain 0 has 8 items, fewer than its share of 20"),  # F45
        ("SeqDomainSampler", {"batch_size": 4}, "must be divisible"),
        ("RandomClassSampler", {"batch_size": 2, "n_ins": 4}, "batch_size=2 must be no less than n_ins=4"),
        ("RandomClassSampler", {"batch_size": 10, "n_ins": 2}, "needs 5 classes, but there are 4"),
    ],
)
def test_impossible_requests_are_explained(items, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(name, data_source=items, **arguments)
