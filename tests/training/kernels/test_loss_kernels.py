"""The compiled cross-entropies: equal to torch, lane by lane, and refused where they would read or write elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import (
    CrossEntropy,
    LaneLosses,
)
from gridsearch.training.lane_loss import LossRecipe
from gridsearch.training.lanes.runtime.losses import PackLosses
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler


WEIGHTS = torch.tensor([0.2, 3.0, 0.7, 1.0, 1.9], dtype=torch.float64)
LOSSES = {
    "plain": [LossRecipe()] * 3,
    "smoothed": [LossRecipe(), LossRecipe(0.1), LossRecipe(0.3)],
    "weighted": [LossRecipe(), LossRecipe(0.1, weights=WEIGHTS), LossRecipe(weights=WEIGHTS.flip(0))],
    "focal": [LossRecipe(gamma=0.5), LossRecipe(0.1, 2.0, WEIGHTS), LossRecipe(gamma=5.0)],
    "mixed": [LossRecipe(gamma=2.0), LossRecipe(0.1), LossRecipe(weights=WEIGHTS)],
}


def pack_losses(recipes, *, compiles, dtype=torch.float64):
    found = PackLosses(len(recipes), 5, dtype, torch.device("cpu"), compiles=compiles)
    found.set_recipes(recipes)
    return found


def loss_by_hand(recipe, logits, labels):
    """Write the loss of a batch as its definition reads, class by class."""
    targets = F.one_hot(labels, 5).double() * (1 - recipe.smoothing) + recipe.smoothing / 5
    weights = torch.ones(5, dtype=torch.float64) if recipe.weights is None else recipe.weights
    p = logits.softmax(1)
    each = targets * weights * (1 - p) ** recipe.gamma * -logits.log_softmax(1)
    return each.sum() / weights[labels].sum()


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_equal_torch(kind, columns, scale, compiles):
    draw = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 9, 5, generator=draw, dtype=torch.float64) * scale).requires_grad_()
    labels = torch.randint(5, (9, columns), generator=draw).t()
    losses, gradients = pack_losses(LOSSES[kind], compiles=compiles)(logits.detach(), labels)
    for lane, recipe in enumerate(LOSSES[kind]):
        own = labels[lane % columns]
        wanted = recipe(logits[lane], own)
        if not recipe.gamma:
            torch.testing.assert_close(
                wanted,
                F.cross_entropy(logits[lane], own, weight=recipe.weights, label_smoothing=recipe.smoothing),
            )
        if scale == 1:
            torch.testing.assert_close(
                wanted, loss_by_hand(recipe, logits[lane], own), rtol=1e-12, atol=1e-12
            )
        (gradient,) = torch.autograd.grad(wanted, logits)
        torch.testing.assert_close(losses[lane], wanted.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradients[lane], gradient[lane], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "recipe", [LossRecipe(), LossRecipe(0.1), LossRecipe(0.0, 2.0), LossRecipe(0.1, 2.0)]
)
def test_bad_logits_give_the_losses_that_torch_gives(recipe):
    logits = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    logits[0, 0, 0], logits[1, 2, 3], logits[2, 1, 1] = -float("inf"), float("nan"), float("inf")
    labels = torch.full((1, 6), 2)
    kinds = [pack_losses([recipe] * 4, compiles=c, dtype=torch.float32) for c in (True, False)]
    found = [losses(logits, labels) for losses in kinds]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        assert ours[3].isfinite().all()


@pytest.mark.parametrize("label", [-1, 5, 2**40])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_label_of_no_class_is_refused(label, lanes, gamma):
    """Its gradient would be written beyond the tensor's end."""
    kernel = CrossEntropy.build(torch.float32)
    labels = torch.zeros(lanes, 4, dtype=torch.int64)
    labels[-1, 2] = label
    with pytest.raises(IndexError, match=f"a label is {label}, where there are 5 classes"):
        kernel(torch.zeros(2, 4, 5), labels, LaneLosses([LossRecipe(gamma=gamma)] * 2, torch.float32))


def test_losses_of_other_types_and_shapes_are_refused():
    kernel = CrossEntropy.build(torch.float32)
    logits, labels = torch.zeros(2, 4, 5), torch.zeros(1, 4, dtype=torch.int64)
    recipes = LaneLosses([LossRecipe()] * 2, torch.float32)
    kernel(logits, labels, recipes)
    for wrong in (
        (logits.double(), labels, recipes),
        (logits, labels.int(), recipes),
        (logits, labels, LaneLosses([LossRecipe()], torch.float32)),
        (logits, labels, LaneLosses([LossRecipe()] * 2, torch.float64)),
        (logits, labels, LaneLosses([LossRecipe(weights=torch.ones(4))] * 2, torch.float32)),
    ):
        with pytest.raises(ValueError, match="a kernel needs"):
            kernel(*wrong)
