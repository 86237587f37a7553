"""Which optimizers of a user's own are refused before a trial begins, and with what words."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from gridsearch.errors import UsageError
from gridsearch.training.own_optimizer import check_optimizer


class Decaying(torch.optim.SGD):
    """Takes two numbers as one argument."""

    def __init__(self, params, lr=0.1, betas=(0.9, 0.99)):
        super().__init__(params, lr=lr, momentum=betas[0])


class Sharpness(torch.optim.SGD):
    """As SAM is published."""

    def first_step(self): ...

    def second_step(self): ...


class Closing(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None, "it requires closure, but none was given"


class Counting(torch.optim.SGD):
    steps = 0

    def step(self, closure=None):
        Counting.steps += 1
        super().step(closure)


LOSSES = []


def note(loss):
    LOSSES.append(loss)


class Noting(torch.optim.SGD):
    def step(self, closure=None):
        note(len(self.param_groups))
        super().step(closure)


class Caching(torch.optim.SGD):
    """Computes once what all its steps need."""

    known = {}  # noqa: RUF012 - shared on purpose

    def step(self, closure=None):
        self.known.setdefault("scale", 2.0)
        super().step(closure)


@pytest.mark.parametrize(
    ("options", "make", "told"),
    [
        ({"betas": "a b"}, Decaying, "optimizer.betas takes 2 numbers, as '0.9 0.99', not 'a b'"),
        ({"betas": 0.9}, Decaying, "optimizer.betas takes 2 numbers, as '0.9 0.99', not 0.9"),
        ({"alpha": -1}, torch.optim.RMSprop, "cannot be made: ValueError: Invalid alpha value: -1"),
        ({}, torch.optim.LBFGS, "computes the loss several times a step"),
        ({}, dict, "cannot be made: ValueError"),
        (
            {},
            torch.optim.SparseAdam,
            "cannot be used: RuntimeError: SparseAdam does not support dense gradients",
        ),
        ({}, Sharpness, "computes the loss several times a step"),
        ({}, lambda params: Closing(params, 0.1), "computes the loss several times a step"),
        ({}, Counting, "changes Counting.steps in each step, which all trials of a process share"),
        (
            {},
            partial(Noting),
            "changes LOSSES in each step, which all trials of a process share",
        ),
    ],
)
def test_an_optimizer_that_cannot_train_is_refused_in_one_line(make_settings, options, make, told):
    with pytest.raises(UsageError) as refused:
        check_optimizer(make, make_settings(optimizer="my.py:F", optimizer_options=options))
    assert told in refused.value.message and "\n" not in refused.value.message


def test_an_optimizer_may_keep_for_all_trials_what_its_first_step_computes(make_settings):
    check_optimizer(Caching, make_settings(optimizer="my.py:F"))
    assert Caching.known
