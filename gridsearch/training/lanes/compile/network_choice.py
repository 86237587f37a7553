"""Which network trains lanes of these models: the stacked one, the vmapped one, or none.

Stands between the models that lanes start from and the program that trains them.  Neither network is trusted before
its logits, gradients and buffers agree with those of each lane's own module on a few images, and the logits of a
traced one on a whole batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from gridsearch.errors import said
from gridsearch.training.failures import is_out_of_memory
from gridsearch.training.lanes.compile.agreement import Disagrees, Undecided, check
from gridsearch.training.lanes.compile.batch_agreement import OfModel, OfNetwork, check_batch
from gridsearch.training.lanes.compile.lane_values import NotPackable, NotStackable, TrainsAlone
from gridsearch.training.lanes.compile.module_state import adopt_tensors
from gridsearch.training.lanes.compile.network import StackedNetwork, VmapNetwork
from gridsearch.training.lanes.compile.reference import Originals, Reference
from gridsearch.training.lanes.runtime.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import nn

    from gridsearch.training.lanes.compile.network import Network
    from gridsearch.training.precision import Precision

_log = logging.getLogger(__name__)


def choose(
    models: Sequence[nn.Module],
    x_BCHW: torch.Tensor,
    precision: Precision,
    rates: Sequence[float | None] | None = None,
    *,
    more: Callable[[], torch.Tensor] | None = None,
    whole: Callable[[], torch.Tensor] | None = None,
    compiles: bool = False,
    host_streams: bool = True,
) -> tuple[Network, Storage]:
    """Return the best network for lanes that start from these models, and their weights.

    Args:
        models: one for each lane, as its factory made it; they are used up, their tensors copied before.
        x_BCHW: `SAMPLE` images.
        precision: how the lanes compute.
        rates: each lane's dropout rate, None where it is the model's own.
        more: gives the images of a step, for networks that make rounding large; see `check`.
        whole: gives as many images as the largest step takes; see `check_batch`.
        compiles: kernels may be compiled for them, which recorded steps cannot run.
        host_streams: each lane has a generator on the host, which recorded steps cannot ask.

    Raises:
        NotPackable: they must train one after the other.
        Exception: whatever the models raise.
    """
    rates = [None] * len(models) if rates is None else rates
    originals, storage = _originals(models, x_BCHW, precision, more, whole)
    if storage.flat.dtype != precision.weights:
        raise NotPackable(f"its weights are {storage.flat.dtype}")
    try:
        try:
            if reason := next((r.not_stacked for r in originals.references if r.not_stacked), ""):
                raise NotStackable(reason)
            how = {"compiles": compiles, "host_streams": host_streams}
            return _stacked(originals, storage, rates, **how), storage
        except TrainsAlone:
            raise
        except Exception as error:  # noqa: BLE001  (the rewrite meets whatever there is)
            reason = _why_not(error)
        return _mapped(originals, storage, reason), storage
    except TrainsAlone as error:
        raise NotPackable(str(error)) from error


def _mapped(originals: Originals, storage: Storage, reason: str) -> VmapNetwork:
    """Return the vmapped network of `choose`.

    Raises:
        NotPackable: there is none.
        TrainsAlone: likewise.
    """
    models = originals.models
    mapped = VmapNetwork(models[0], storage, originals.images, reason)
    if not all(mapped.alike(m) for m in models[1:]):
        raise NotPackable("the lanes' models are not alike")
    try:
        check(mapped, storage, originals)
    except TrainsAlone:
        raise
    except Exception as error:
        raise NotPackable(f"{reason}; vmap refuses: {_why_not(error, '')}") from error
    return mapped


def _why_not(error: Exception, otherwise: str = "its stacked form does not run: ") -> str:
    """Return why a network cannot be, given what it raised; the models themselves have run by then.

    Raises:
        Exception: memory ran out, which a smaller pack may have.
    """
    if is_out_of_memory(error):
        raise error
    return str(error) if isinstance(error, NotStackable) else otherwise + _line(error)


def _line(error: Exception) -> str:
    if "random operation" in said(error):  # its own words advise on what a user cannot reach
        return "it draws random numbers"
    return " ".join(said(error).split())[:120]


def _originals(
    models: Sequence[nn.Module],
    x_BCHW: torch.Tensor,
    precision: Precision,
    more: Callable[[], torch.Tensor] | None,
    whole: Callable[[], torch.Tensor] | None,
) -> tuple[Originals, Storage]:
    """Return the models with what each does by itself, and the weights of all.

    Raises:
        NotPackable: they must train one after the other.
        Exception: whatever the models raise.
    """
    try:
        for model in models:
            adopt_tensors(model)
        references = [Reference.of(model, x_BCHW, precision) for model in models]
    except TrainsAlone as error:
        raise NotPackable(str(error)) from error
    first = references[0].trained
    shared = Counter(id(p) for model in models for p in {*model.parameters(), *model.buffers()})
    if max(shared.values(), default=1) > 1:
        raise NotPackable("the lanes' models share tensors")
    if any(reference.trained != first for reference in references):
        raise NotPackable("the lanes' models train different parameters")
    if not first:
        raise NotPackable("none of its parameters gets a gradient")
    return Originals(models, x_BCHW, precision, references, more, whole), Storage(models, first)


def _stacked(
    originals: Originals,
    storage: Storage,
    rates: Sequence[float | None],
    *,
    compiles: bool,
    host_streams: bool,
) -> StackedNetwork:
    """Return the stacked network of `choose`; without compiled kernels where they compute something else.

    Raises:
        NotStackable: there is none.
    """
    models, x_BCHW = originals.models, originals.images
    by_hand = x_BCHW.device.type == "cpu" and not originals.precision.rounds
    how = {"by_hand": by_hand, "compiles": compiles, "host_streams": host_streams}
    stacked = StackedNetwork(models[0], storage, x_BCHW, **how)
    if not all(map(stacked.alike, models[1:], rates[1:])):
        raise NotStackable("the lanes' models are not alike")
    stacked.dropout.rates = list(rates)
    try:
        check(stacked, storage, originals)
        if stacked.counts and originals.whole is not None:
            check_batch(
                OfNetwork(stacked, storage),
                OfModel(models[0], storage),
                originals.whole(),
                originals.precision.unrounded,
                masks=not stacked.has_dropout or x_BCHW.device.type == "cpu",
            )
    except Disagrees as error:
        if not compiles or isinstance(error, Undecided):
            raise
        _log.warning("without compiled kernels: %s", error)
        how = {"compiles": False, "host_streams": host_streams}
        return _stacked(originals, storage, rates, **how)
    return stacked
