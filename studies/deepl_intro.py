"""First steps in learning by gradients, as plain functions: three regressions and the minimum of a surface.

Each is a generator of params and a seed: it makes its own data from the seed and yields its metrics after every
step of gradient descent by torch's automatic differentiation.  The study files `deepl-intro-*.toml` grid them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POINTS = 120
"""Of each data set; a third of them is held out."""


def linear(params: Mapping[str, Any], seed: int) -> Iterator[dict[str, float]]:
    """Fit a line to noisy points of y = 2 x + 1.

    Args:
        params: `lr`, `steps`, and `noise` (standard deviation of y).
        seed: of the data.

    Yields:
        `loss` (mean squared error of the points held out), `slope` and `intercept` of the line so far.
    """
    random = torch.Generator().manual_seed(seed)
    x_N = torch.rand(POINTS, generator=random) * 4 - 2
    y_N = 2 * x_N + 1 + params["noise"] * torch.randn(POINTS, generator=random)
    (x_train, x_held), (y_train, y_held) = _parted(x_N), _parted(y_N)
    line = torch.zeros(2, requires_grad=True)
    for _ in range(params["steps"]):
        _descend([line], mse_loss(line[0] * x_train + line[1], y_train), lr=params["lr"])
        slope, intercept = line.detach()
        loss = mse_loss(slope * x_held + intercept, y_held)
        yield {"loss": float(loss), "slope": float(slope), "intercept": float(intercept)}


def nonlinear(params: Mapping[str, Any], seed: int) -> Iterator[dict[str, float]]:
    """Fit a network of one hidden layer to noisy points of a sine.

    Args:
        params: `lr`, `steps`, `hidden` (units), and `noise` (standard deviation of y).
        seed: of the data and of the first weights.

    Yields:
        `loss` (mean squared error of the points held out) and `train_loss`.
    """
    torch.manual_seed(seed)
    x_N1 = torch.rand(POINTS, 1) * 6 - 3
    y_N1 = torch.sin(x_N1) + params["noise"] * torch.randn(POINTS, 1)
    (x_train, x_held), (y_train, y_held) = _parted(x_N1), _parted(y_N1)
    net = nn.Sequential(nn.Linear(1, params["hidden"]), nn.Tanh(), nn.Linear(params["hidden"], 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=params["lr"])
    for _ in range(params["steps"]):
        optimizer.zero_grad()
        loss = mse_loss(net(x_train), y_train)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            held_loss = mse_loss(net(x_held), y_held)
        yield {"loss": float(held_loss), "train_loss": float(loss.detach())}


def logistic(params: Mapping[str, Any], seed: int) -> Iterator[dict[str, float]]:
    """Part two overlapping clouds of points in the plane by logistic regression.

    Args:
        params: `lr`, `steps`, and `weight_decay`.
        seed: of the data.

    Yields:
        `accuracy` and `loss` (cross entropy in nats) of the points held out.
    """
    random = torch.Generator().manual_seed(seed)
    label_N = torch.arange(POINTS) % 2
    x_N2 = torch.randn(POINTS, 2, generator=random) + (2.0 * label_N - 1)[:, None]
    y_N = label_N.float()
    (x_train, x_held), (y_train, y_held) = _parted(x_N2), _parted(y_N)
    weight, bias = torch.zeros(2, requires_grad=True), torch.zeros((), requires_grad=True)
    for _ in range(params["steps"]):
        loss = binary_cross_entropy_with_logits(x_train @ weight + bias, y_train)
        _descend([weight, bias], loss + params["weight_decay"] * weight.square().sum(), lr=params["lr"])
        logit = x_held @ weight.detach() + bias.detach()
        yield {
            "accuracy": float(((logit > 0) == (y_held > 0)).float().mean()),
            "loss": float(binary_cross_entropy_with_logits(logit, y_held)),
        }


def minimum(params: Mapping[str, Any], seed: int) -> Iterator[dict[str, float]]:  # noqa: ARG001 - nothing is drawn
    """Go downhill on Himmelblau's function from a point of the plane; it has four minima of 0.

    Args:
        params: `x` and `y` (where to start), `lr`, and `steps`.
        seed: without effect.

    Yields:
        `height` of the surface, and `at_x`, `at_y`, where that is.
    """
    place = torch.tensor([float(params["x"]), float(params["y"])], dtype=torch.float64, requires_grad=True)
    for _ in range(params["steps"]):
        _descend([place], _himmelblau(place), lr=params["lr"])
        here = place.detach()
        yield {"height": float(_himmelblau(here)), "at_x": float(here[0]), "at_y": float(here[1])}


def _himmelblau(place: torch.Tensor) -> torch.Tensor:
    x, y = place
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _parted(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Part points into those to learn from and those held out."""
    held = POINTS // 3
    return values[held:], values[:held]


def _descend(parameters: list[torch.Tensor], loss: torch.Tensor, *, lr: float) -> None:
    """Make one step of gradient descent."""
    slopes = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.sub_(lr * slope)
