"""What a network is made of, as the compiled operations see it: stages of one lane, whatever a model calls them.

Stands between a traced graph (`lanes.compile.step_graph`) and the operations, each of which covers a run of stages.

Shapes: C/O channels in and out, H/W height and width, F/G features.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, padded by zeros; pairs are (height, width)."""

    channels: int
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch norm of maps or features.

    Attributes:
        channels: C.
        affine: it has a weight and a bias.
        tracked: it has running statistics; without them, evaluation too takes those of the batch.
    """

    channels: int
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True
    tracked: bool = True


@dataclass(frozen=True, slots=True)
class Relu:
    """ReLU."""


@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """Leaky ReLU; its slope is positive."""

    slope: float


class Curve(StrEnum):
    """An activation of straight or parabolic pieces that is no (leaky) ReLU."""

    RELU6 = "relu6"
    HARDSIGMOID = "hardsigmoid"
    HARDSWISH = "hardswish"


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation of each number."""

    curve: Curve


@dataclass(frozen=True, slots=True)
class Gate:
    """Maps times a number for each channel of an image, [C], which is the operation's next input."""


@dataclass(frozen=True, slots=True)
class Concat:
    """Maps of several inputs with their channels side by side.

    Attributes:
        channels: of each input.
    """

    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """The sum with another value of the same shape, which is the operation's next input."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Max pooling; whole windows alone."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, slots=True)
class AvgPool:
    """Mean pooling; whole windows alone, whose padding counts as zeros."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, slots=True)
class GlobalMean:
    """Each channel's mean over the whole map: [C, H, W] to [C]."""


@dataclass(frozen=True, slots=True)
class Flatten:
    """Maps as features: [C, H, W] to [C*H*W]."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A dense layer."""

    inputs: int
    outputs: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout.

    Attributes:
        rate: the model's own.
        features: whole channels are dropped.
        from_recipe: a lane's recipe may set the rate.
        layer: its number in the order of the calls.
    """

    rate: float
    features: bool
    from_recipe: bool
    layer: int


Stage = (
    Conv
    | BatchNorm
    | Relu
    | LeakyRelu
    | Activation
    | Add
    | Gate
    | Concat
    | MaxPool
    | AvgPool
    | GlobalMean
    | Flatten
    | Linear
    | Dropout
)
Shape = tuple[int, ...]


def shape_after(stage: Stage, shape: Shape) -> Shape:
    """Return one image's shape after a stage, given the one before: [C, H, W] or [F]."""
    match stage:
        case Conv():
            sides = zip(shape[1:], stage.kernel, stage.stride, stage.padding, stage.dilation, strict=True)
            return (
                stage.outputs,
                *((side + 2 * p - d * (k - 1) - 1) // step + 1 for side, k, step, p, d in sides),
            )
        case MaxPool() | AvgPool():
            pooled = zip(shape[1:], stage.kernel, stage.stride, stage.padding, strict=True)
            return (shape[0], *((side + 2 * p - k) // step + 1 for side, k, step, p in pooled))
        case Concat():
            return (sum(stage.channels), *shape[1:])
        case GlobalMean():
            return shape[:1]
        case Flatten():
            return (numbers(shape),)
        case Linear():
            return (stage.outputs,)
        case _:
            return shape


def numbers(shape: Shape) -> int:
    """Return how many numbers one image has."""
    count = 1
    for side in shape:
        count *= side
    return count
