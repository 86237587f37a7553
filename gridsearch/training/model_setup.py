"""A user's model before it trains: built from its stream, tried on two images, laid out in memory.

Stands between the plug-in that builds a module and the engine that trains it.  What is wrong with a model is
said here, in one line, before the first step.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.parameter import is_lazy

from gridsearch.errors import RAISED, said
from gridsearch.training import seeds
from gridsearch.training.batches import BatchPlan, batch_plan
from gridsearch.training.failures import note_images
from gridsearch.training.lanes.compile.lane_values import TrainsAlone
from gridsearch.training.lanes.compile.module_state import (
    HOOKS,
    Fingerprint,
    identities,
    is_torchs,
    plain_state,
    why_alone,
)
from gridsearch.training.model_outputs import (
    ModelRefused,
    check_logits,
    give_logits_alone,
    gives_object_with_logits,
)
from gridsearch.training.weight_hooks import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.records import ImageSettings
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData


_BUILT: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()
"""The tensors of all networks that were made and are still there, by their ids."""


_SAME = 1e-2
"""How far logits may be apart in two layouts of memory, as a share of the largest: a mistake is of the order of 1."""


def has_dropout(model: nn.Module) -> bool:
    """Whether a model has a dropout module whose rate a recipe can set."""
    return any(isinstance(m, nn.modules.dropout._DropoutNd) for m in model.modules())


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch norm, which cannot train on a batch of one image."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set the rate of every dropout module.

    Raises:
        ModelRefused: there is none.
    """
    if not has_dropout(model):
        raise ModelRefused(f"dropout={rate:g}: the model has no dropout module")
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = rate


def batches_of(model: nn.Module, settings: ImageSettings, data: ResidentData) -> BatchPlan:
    """Return the batches of each of a trial's epochs."""
    return batch_plan(
        data.epoch_images, settings.batch, drop_last=settings.drop_last, drop_single=has_batch_norm(model)
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters; a tied one counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def build_network(
    settings: ImageSettings,
    seed: int,
    data: ResidentData,
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    precision: Precision,
) -> nn.Module:
    """Build a trial's model, check it and put it on the data's device.

    The weights are drawn in float32 on the CPU from the trial's stream and then converted, so that they are
    the same for every device and `dtype`.

    Raises:
        ModelRefused: it is no module, has nothing to train, or does not give logits [B, Y].
        Exception: whatever the user's code raises.
    """
    network = _make(settings, seed, data, build, precision)
    lazy = any(is_lazy(p) for p in network.parameters())
    marks, kind = None if lazy else _Marks(network), type(network)
    x_BCHW = sample(data, settings.norm, precision, torch.contiguous_format)
    try:
        _try(network, x_BCHW, data, precision)
    except RAISED as error:  # a user's model may raise anything
        note_images(error, (data.channels, *data.image_size))
        raise
    if 1 in batches_of(network, settings, data).sizes:
        _try_single(network, x_BCHW[:1], data, precision, settings)
    if marks is not None and marks.changed():
        gives_object = type(network) is not kind
        network = _make(settings, seed, data, build, precision)  # one that was never called
        if gives_object:
            give_logits_alone(network)
    _refuse_frozen(network, settings.model)
    return network


def check_model(model: object, shape: tuple[int, int, int], classes: int) -> None:
    """Call a model on two images in both modes, on the CPU and in single precision.

    Args:
        model: new; it is used up.
        shape: (C, H, W) that it gets.
        classes: of the dataset.

    Raises:
        ModelRefused: it is no module, does not give logits [2, classes], or has nothing to train.
        Exception: whatever the user's code raises.
    """
    with seeds.isolated(torch.device("cpu")), torch.no_grad():
        network = _module(model, "its code")
        x_BCHW = torch.rand(2, *shape)
        for training in (False, True):
            network.train(training)
            found: Any = network(x_BCHW)
            if not gives_object_with_logits(found):
                check_logits(found, len(x_BCHW), classes, training=training)
    _refuse_frozen(network, "it")


def _module(model: object, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ModelRefused(f"{name} gives a {type(model).__name__}, not a torch.nn.Module")
    return model


def _refuse_frozen(network: nn.Module, name: str) -> None:
    if not any(p.requires_grad for p in network.parameters()):
        raise ModelRefused(f"{name} has no parameters to train")


def _make(
    settings: ImageSettings,
    seed: int,
    data: ResidentData,
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    precision: Precision,
) -> nn.Module:
    weights = seeds.stream(seed, seeds.WEIGHTS)
    seeds.reseed(torch.device("cpu"), weights)
    seeds.reseed_others(weights)
    model = _module(build(settings, data), settings.model)
    _refuse_again(model, settings.model)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    convert: Any = lambda t: t.to(data.device, _dtype(t, precision))  # noqa: E731
    network: nn.Module = model._apply(convert)  # type: ignore[no-untyped-call]
    return network


def _refuse_again(model: nn.Module, name: str) -> None:
    """Refuse a network whose weights or running statistics another trial has: it would start where that one ended.

    Raises:
        ModelRefused: it is one.
    """
    norms = [m.running_mean for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    own = [p for p in model.parameters() if p.requires_grad] + [mean for mean in norms if mean is not None]
    if any(_BUILT.get(id(tensor)) is tensor for tensor in own):
        raise ModelRefused(f"{name} gives a network that it gave before; make a new one in each call")
    _BUILT.update({id(tensor): tensor for tensor in own})


def _dtype(tensor: torch.Tensor, precision: Precision) -> torch.dtype:
    """Return what a tensor becomes: complex ones stay complex, which `Module.to` would make real."""
    if tensor.is_complex():
        return torch.complex128 if precision.weights is torch.float64 else torch.complex64
    return precision.weights if tensor.is_floating_point() else tensor.dtype


class _Marks:
    """What a call of a model would change, to see whether it has."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooked = why_alone(model) is not None
        self._plain = not self._hooked and all(is_torchs(type(m)) for m in model.modules())
        if not self._plain:
            self._before = self._state()
            self._tensors = {name: t.detach().clone() for name, t in self._named().items()}

    @property
    def sees_all(self) -> bool:
        """Whether everything that a call may change can be seen."""
        return self._plain or (not self._hooked and self._before is not None)

    def changed(self) -> bool:
        """Whether a call has changed something, or may have."""
        if self._plain:
            return False
        if not self.sees_all or self._state() != self._before:
            return True
        now = self._named()
        return any(not torch.equal(now[name], t) for name, t in self._tensors.items())

    def _state(self) -> object:
        try:
            return plain_state(self._model), identities(self._model)
        except TrainsAlone:
            return None

    def _named(self) -> dict[str, torch.Tensor]:
        return dict(self._model.named_parameters()) | dict(self._model.named_buffers())


def kept_beside_tensors(model: nn.Module) -> object:
    """Return what a model's modules, classes and hooks keep that is no tensor, so that two looks can be compared.

    What a model's code keeps in global variables of its module is not seen.

    Returns:
        None where it cannot be said, or where a tensor has no dense form of its own that a file could hold.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(t.layout is not torch.strided or 0 in t.stride() or t.dtype is torch.complex128 for t in tensors):
        return None
    try:
        fingerprint = Fingerprint(model)
        hooks = [
            fingerprint.of(vars(module)[table], table)
            for module in model.modules()
            for table in HOOKS
            if vars(module).get(table)
        ]
        return plain_state(model), hooks
    except TrainsAlone:
        return None


def sample(
    data: ResidentData, norm: str, precision: Precision, memory_format: torch.memory_format
) -> torch.Tensor:
    """Return the first two training images [2, C, H, W], to try a model on."""
    make = data.batches(norm=norm, dtype=precision.weights, memory_format=memory_format)
    return make(data.train[:2])


def _try(model: nn.Module, x_BCHW: torch.Tensor, data: ResidentData, precision: Precision) -> torch.Tensor:
    """Run a model once in evaluation mode, which also shapes lazy layers, and return the logits, looked at."""
    model.eval()
    with torch.no_grad(), precision.forward():
        found: Any = model(x_BCHW)
        if gives_object_with_logits(found):
            give_logits_alone(model)
            found = model(x_BCHW)
        check_logits(found, len(x_BCHW), data.num_classes)
    model.train()
    logits_BY: torch.Tensor = found
    return logits_BY


def _try_single(
    model: nn.Module, x_1CHW: torch.Tensor, data: ResidentData, precision: Precision, settings: ImageSettings
) -> None:
    """Run a model on one image, since a batch of its trial will have no more.

    Each form of a network would do something of its own there: a graph that was traced with two images may go on
    where the model itself fails.

    Raises:
        ModelRefused: it has run on two images, and does not on one.
    """
    try:
        _try(model, x_1CHW, data, precision)
    except RAISED as error:  # a user's model may raise anything
        line = " ".join(said(error).split())
        if not isinstance(error, ModelRefused):
            line = f"the model cannot take a batch of one image: {line}"
        last = f"the last batch of an epoch of {data.epoch_images} images has no more (drop_last=true leaves it away)"
        raise ModelRefused(f"{line}; {'batch=1' if settings.batch == 1 else last}") from error


def lay_out(
    model: nn.Module, settings: ImageSettings, data: ResidentData, precision: Precision
) -> torch.memory_format:
    """Put a model's weights into the faster memory layout and return the layout that its images should have."""
    memory_format = lone_layout(model, settings.norm, data, precision)
    if memory_format == torch.channels_last:
        model.to(memory_format=memory_format)  # type: ignore[call-overload]
    return memory_format


def lone_layout(model: nn.Module, norm: str, data: ResidentData, precision: Precision) -> torch.memory_format:
    """Return the layout in which a model trains alone.

    channels_last pays for convolutions in float32 on a CPU (LeNet at batch 100: 9.0 to 6.0 ms a step, most of
    it in max pooling), not in float64 (13.8 to 21.7 ms); on CUDA it is the tensor cores' layout for bfloat16.
    Models that call `view` on a feature map cannot have it, and where `flatten` copies instead of giving a view, a
    change in place means something else: so a copy of the model tries it first, and must give what it gives otherwise.
    One that may have a memory outside of itself is not tried.
    """
    if not pays_channels_last(model, precision) or not _Marks(model).sees_all:
        return torch.contiguous_format
    x_BCHW = sample(data, norm, precision, torch.channels_last)
    exact = precision.unrounded
    try:
        trial = copy_of(model)
        expected = _try(trial, sample(data, norm, precision, torch.contiguous_format), data, exact)
        trial = trial.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = _try(trial, x_BCHW, data, exact)
        least = _SAME * float(expected.abs().max())
        if not torch.allclose(found, expected, rtol=_SAME, atol=least, equal_nan=True):
            return torch.contiguous_format
        with torch.enable_grad(), precision.forward():
            loss = F.cross_entropy(trial(x_BCHW), data.labels[data.train[:2]])
        loss.backward()  # type: ignore[no-untyped-call]
    except RAISED:  # a user's code may raise anything; then its model stays as it is
        return torch.contiguous_format
    return torch.channels_last


def pays_channels_last(model: nn.Module, precision: Precision) -> bool:
    """Whether a model is faster in channels_last; see `lone_layout`."""
    layered = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in model.modules())
    if precision.device == "cpu" and any(map(_overruns, model.modules())):
        return False
    fast = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16",)}.get(precision.device, ())
    return layered and precision.name in fast


_BLOCK = 16  # channels of a block of oneDNN's at most: 8 with AVX2


def _overruns(m: nn.Module) -> bool:
    """Whether oneDNN may write outside of its memory in a layer's backward pass in channels_last.

    It does where a convolution of single pixels with a stride has fewer channels than a block: the process ends, or
    gradients are wrong (oneDNN's issue 6035; torch 2.13).
    """
    if not isinstance(m, nn.Conv2d) or set(m.kernel_size) != {1} or set(m.stride) == {1}:
        return False
    return m.in_channels // m.groups < _BLOCK
