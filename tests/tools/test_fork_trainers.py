"""A fork's trainers by `with_loss`, one of each pattern, against the same trainers with the loss in their source."""

import os
import subprocess
import sys

import pytest
import torch

from support.fork_trainers import REFUSED, RESUMED, RUNS
from support.paths import SUPPORT
from support.wanted import edit_by_hand

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learned(copy_fork, tiny_dataset, tmp_path_factory):
    """Return ({(trainer, loss): weights}, the same in the fork that is edited by hand, the folder of the first)."""
    forks = [copy_fork(tmp_path_factory.mktemp("forks") / name) for name in ("as it was", "edited")]
    edit_by_hand(forks[1])
    for path in (fork / "clip" / "tiny.pt" for fork in forks):  # the fork's clip rounds weights, ours does not
        torch.save({name: value.half() for name, value in torch.load(path, weights_only=True).items()}, path)
    command = [sys.executable, str(SUPPORT / "fork_trainers.py"), str(tiny_dataset.parent)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, cwd=fork, env=variables, stderr=subprocess.PIPE, text=True) for fork in forks]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    return *(torch.load(fork / "weights.pt", weights_only=True) for fork in forks), forks[0]


def _distance(some, others):
    assert some.keys() == others.keys()
    return max((some[name] - others[name]).abs().max().item() for name in some)


@pytest.mark.parametrize("trainer, loss", RUNS)
def test_what_is_learned_is_what_the_loss_in_the_source_teaches(trainer, loss, learned):
    replaced, by_hand, _ = learned
    apart = _distance(replaced[trainer, loss], replaced[trainer, "CE"])
    assert apart > 1e-3
    assert _distance(replaced[trainer, loss], by_hand[trainer, loss]) < 1e-3 * apart


@pytest.mark.parametrize("trainer, loss", RESUMED)
def test_a_run_that_was_resumed_learns_the_same(trainer, loss, learned):
    assert _distance(learned[0][trainer, loss, "resumed"], learned[0][trainer, loss]) == 0


@pytest.mark.parametrize("trainer", REFUSED)
def test_what_is_refused_has_saved_nothing(trainer, learned):
    weights, _, fork = learned
    assert not list((fork / "out" / f"{trainer}-DSPT").rglob("model*"))
    is_first = trainer == "DPC"  # NLPrompt takes steps by cross-entropy before its first one by another loss
    assert (_distance(weights[trainer, "DSPT"], weights[trainer, "untrained"]) == 0) == is_first
