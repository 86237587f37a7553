"""What a network is made of, as the compiled operations see it: stages of one lane, whatever a model calls them.

Stands between a traced graph (`lanes.compile.step_graph`) and the operations, each of which covers a run of stages.

Shapes: C/O channels in and out, H/W height and width, F/G features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gridsearch.training.kernels.activation_curves import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

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
class Transposed:
    """A transposed convolution: the gradient of a convolution's input, as a layer.

    Attributes:
        conv: the convolution, from the result to what comes in; `bias` says whether the result has one.
        size: (height, width) of the result.
    """

    conv: Conv
    size: Pair

    @property
    def shape(self) -> Shape:
        """Of one image of the result."""
        return (self.conv.channels, *self.size)


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch norm of maps or features.

    Attributes:
        channels: C.
        momentum: of the running statistics; None where they are the means of all batches' statistics: the count of
            batches is then a third buffer.
        affine: it has a weight and a bias.
        tracked: it has running statistics; without them, evaluation too takes those of the batch.
    """

    channels: int
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    tracked: bool = True


@dataclass(frozen=True, slots=True)
class Relu:
    """ReLU."""


@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """Leaky ReLU; its slope is positive."""

    slope: float


@dataclass(frozen=True, slots=True)
class Gate:
    """Maps times a number for each channel of an image, [C], which is the operation's next input."""


@dataclass(frozen=True, slots=True)
class Multiply:
    """The product with another value of the same shape, number by number, which is the operation's next input."""


@dataclass(frozen=True, slots=True)
class Where:
    """The operation's next input where this one, which has no gradient, is not zero; else the one after that."""


@dataclass(frozen=True, slots=True)
class View:
    """The same numbers, [pixels][channels], as another shape."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Arrange:
    """Numbers of up to three inputs in another order.

    Attributes:
        shape: of the result.
        sizes: numbers of each input.
        places: int32 [numbers, 2]: of each number, in the order [pixels][channels], its input and its place there; the
            input of a constant is -1, and its place is in `constants`.
        constants: numbers of no input.
    """

    shape: Shape
    sizes: tuple[int, ...]
    places: bytes
    constants: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, slots=True)
class Learned:
    """A parameter, or a buffer, as a value that all images share."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class ImageNorm:
    """A norm over numbers of one image: each pixel's channels, or groups of channels over all pixels.

    Attributes:
        channels: C.
        groups: of channels; 0 for each pixel's own.
        eps: is added to the variance.
        centers: the mean is subtracted.
    """

    channels: int
    groups: int
    eps: float
    centers: bool = True


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over each pixel's channels, or its logarithm."""

    logarithm: bool = False


class Pick(StrEnum):
    """What becomes of a window of numbers, in the order of windows.c.

    Of the largest one, the first of equal ones takes the gradient, or all of them share it.
    """

    SUM = "sum"
    FIRST = "first largest"
    ALL = "all largest"


@dataclass(frozen=True, slots=True)
class Windows:
    """Each number of the result from a window of the input's: their weighted sum, or the largest.

    Attributes:
        pick: which.
        shape: of the result.
        size: numbers of the input.
        places: int32 [numbers, taps]: of each window in the input, both in the order [pixels][channels]; -1 for none.
        weights: float64 [numbers, taps] of a sum.
    """

    pick: Pick
    shape: Shape
    size: int
    places: bytes
    weights: bytes = b""


@dataclass(frozen=True, slots=True)
class Product:
    """Products of pairs of matrices that both are an image's own: [rows][depth] times [depth][columns].

    The result is [rows][count][columns].

    Attributes:
        count: of pairs.
        rows: of the first and of the result.
        columns: of the second and of the result.
        depth: columns of the first, rows of the second.
        scale: factor of the result.
        sizes: numbers of both inputs.
        steps: in each input from row to row and from column to column, in numbers.
        places: int64 [2, count]: where each matrix begins in its input.
    """

    count: int
    rows: int
    columns: int
    depth: int
    scale: float
    sizes: tuple[int, int]
    steps: tuple[Pair, Pair]
    places: bytes


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


class Cell(StrEnum):
    """A kind of recurrent layer, in the order of recurrent.c."""

    RNN_TANH = "RNN with tanh"
    RNN_RELU = "RNN with ReLU"
    LSTM = "LSTM"
    GRU = "GRU"


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A recurrent layer in one direction: features [steps * inputs] to the states [steps * hidden].

    Attributes:
        reverse: the last step comes first.
        begins: the states before the first step are the operation's next input, [hidden], and an LSTM's cells the one
            after; else they are zeros.
        ends: an LSTM's cells [hidden] after the last step come behind the states.
    """

    cell: Cell
    steps: int
    inputs: int
    hidden: int
    reverse: bool = False
    begins: bool = False
    ends: bool = False

    @property
    def shape(self) -> Shape:
        """Of the result."""
        return ((self.steps + self.ends) * self.hidden,)


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout.

    Attributes:
        rate: the model's own.
        from_recipe: a lane's recipe may set the rate.
        layer: its number in the order of the calls.
        drawn: numbers of torch's mask for an image.
        step: so many of an image lie beside each other in a batch's mask, before those of the next image.
        order: int32 [numbers]: of each number, in the order [pixels][channels], its place in the mask of its image.
        alpha: what is dropped becomes the least that SELU gives, and all keeps its mean and variance.
    """

    rate: float
    from_recipe: bool
    layer: int
    drawn: int
    step: int
    order: bytes
    alpha: bool = False


@dataclass(frozen=True, slots=True)
class TorchPart:
    """What torch itself computes: a part of a network that is made of no other stages.

    Attributes:
        words: all that it computes, by which it is told from others.
        shape: of one image of the result, [F].
        sizes: numbers of each input, which are features.
        params: shapes of its parameters.
        compute: from inputs [B, F] and parameters to the result [B, F], for any number of images B.
    """

    words: str
    shape: Shape
    sizes: tuple[int, ...]
    params: tuple[Shape, ...]
    compute: Callable[..., Any] = field(compare=False, repr=False)


Stage = (
    Conv
    | Transposed
    | BatchNorm
    | Relu
    | LeakyRelu
    | Activation
    | Add
    | Gate
    | Multiply
    | Where
    | View
    | Arrange
    | Learned
    | ImageNorm
    | Softmax
    | Windows
    | Product
    | MaxPool
    | AvgPool
    | GlobalMean
    | Flatten
    | Linear
    | Recurrent
    | Dropout
    | TorchPart
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
        case View() | Arrange() | Learned() | Windows() | Recurrent() | Transposed() | TorchPart():
            return stage.shape
        case Product():
            return (stage.columns, 1, stage.rows * stage.count)
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
