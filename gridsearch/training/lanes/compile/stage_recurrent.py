"""What recurrent layers, and single cells of them, are as stages.

Stands beside `stage_layers`, for `stage_calls`.

Shapes: B batch, T steps, F features, H numbers of a state.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import Cell, Recurrent
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.places import ImagesAt, Known
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from gridsearch.training.lanes.compile.stage_reader import StageReader

_LAYER, _FEATURES = 3, 2  # dimensions of what a layer and a cell take
_CELLS = {
    "RNN_TANH": Cell.RNN_TANH,
    "RNN_RELU": Cell.RNN_RELU,
    "LSTM": Cell.LSTM,
    "GRU": Cell.GRU,
}


def is_recurrent(m: nn.Module) -> bool:
    """Whether a layer is recurrent, or a cell of one."""
    return type(m) in (nn.RNN, nn.LSTM, nn.GRU) or type(m) in _CELL_LAYERS


def reads_cells(node: fx.Node) -> bool:
    """Whether anything takes the cells that an LSTM ends with."""
    states = [user for user in node.users if not _takes(user, 0)]
    return any(not _takes(s, 1) or any(u.users for u in s.users if not _takes(u, 0)) for s in states)


def _takes(user: fx.Node, place: int) -> bool:
    return user.target is operator.getitem and user.args[1] in (place, place - 2)


def module(
    r: StageReader,
    place: str,
    m: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    with_cells: bool,
) -> Any:
    """Return the codes of what a recurrent layer or a cell gives, as torch does.

    Args:
        r: what the network is read by.
        place: of the layer in the model.
        m: the layer.
        args: codes of what it is given.
        kwargs: likewise, by name.
        with_cells: those that an LSTM ends with are read; else there is None in their place.

    Raises:
        NoPlan: it is no stage.
    """
    given = dict(zip(("input", "hx"), args, strict=False)) | dict(kwargs)
    prefix = f"{place}." if place else ""
    x, states = given["input"], given.get("hx")
    if not isinstance(x, torch.Tensor):
        raise NoPlan("a recurrent layer of what is no activation")
    if type(m) in _CELL_LAYERS:
        return _CELL_LAYERS[type(m)](r, prefix, m, x, states)
    return _layers(r, prefix, m, x, states, with_cells=with_cells)


def _are_zeros(states: Any) -> bool:
    leaves = [leaf for leaf in pytree.tree_leaves(states) if leaf is not None]
    return all(isinstance(s, Known) and not s.content.is_meta and not s.content.any() for s in leaves)


def _layers(
    r: StageReader, prefix: str, m: nn.RNNBase, x: torch.Tensor, states: Any, *, with_cells: bool
) -> Any:
    """Return the codes of a recurrent layer's states after each step, and of what it ends with."""
    first, at = r.images_first(x)
    if x.dim() != _LAYER or at != ImagesAt(0 if m.batch_first else 1, 1):
        raise NoPlan("a recurrent layer over images")
    if m.proj_size:
        raise NoPlan("a recurrent layer with projections")
    begin = _beginnings(r, m, states)
    last: list[torch.Tensor] = []
    cells: list[torch.Tensor] = []
    for layer in range(m.num_layers):
        if layer and m.dropout:  # which torch draws for steps first
            first = stage_numbers.dropout(r, first, m.dropout, (1, 0, 2), from_recipe=False)
        ways = []
        for reverse in (False, True)[: 1 + m.bidirectional]:
            names = [f"{name}_l{layer}{'_reverse' * reverse}" for name in _NAMES]
            params = tuple(f"{prefix}{name}" if hasattr(m, name) else None for name in names)
            steps, inputs = first.shape[1:]
            own = _CELLS[m.mode], steps, inputs, m.hidden_size, reverse
            stage = Recurrent(*own, begins=begin is not None, ends=with_cells)
            before = [] if begin is None else [r.features(each[len(last)]) for each in begin]
            value = r.add(stage, r.features(first.flatten(1)), *before, params=params)
            found = r.of_maps(value).view(len(first), -1, m.hidden_size)
            ways.append(found[:, :steps])
            last.append(found[:, 0 if reverse else steps - 1])
            cells.append(found[:, -1])
        first = torch.cat(ways, 2) if m.bidirectional else ways[0]
    after = torch.stack(last)
    if not isinstance(m, nn.LSTM):
        return at.back(first), after
    return at.back(first), (after, torch.stack(cells) if with_cells else None)


def _beginnings(r: StageReader, m: nn.RNNBase, states: Any) -> list[torch.Tensor] | None:
    """Return the codes [layers and ways, B, H] of the states that a layer begins with, and of its cells.

    None for zeros.
    """
    if _are_zeros(states):
        return None
    own = list(states) if isinstance(m, nn.LSTM) else [states]
    codes = [r.constant(each.content) if isinstance(each, Known) else each for each in own]
    if not all(isinstance(each, torch.Tensor) and each.dim() == _LAYER for each in codes):
        raise NoPlan("a recurrent layer that begins with what is no activation")
    return codes


_NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def _gates(
    r: StageReader, prefix: str, m: nn.RNNCellBase, x: torch.Tensor, state: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the codes of what the input and the state give to a cell's gates, None for nothing."""
    if x.dim() != _FEATURES or r.images_first(x)[1] != ImagesAt(0, 1):
        raise NoPlan("a recurrent cell over images")
    weight_ih, weight_hh, bias_ih, bias_hh = (
        f"{prefix}{name}" if getattr(m, name) is not None else None for name in _NAMES
    )
    gates = len(m.weight_ih)
    own = stage_numbers.dense(r, x, m.input_size, gates, (weight_ih, bias_ih))
    if not _are_zeros(state):
        return own, stage_numbers.dense(r, state, m.hidden_size, gates, (weight_hh, bias_hh))
    return own, None if bias_hh is None else r.tensor(bias_hh).expand(len(x), gates)


def _sum(r: StageReader, a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    return a if b is None else stage_numbers.add(r, a, b)


def _curve(r: StageReader, x: torch.Tensor, curve: Curve) -> torch.Tensor:
    return stage_numbers.each(r, x, Activation(curve))


def _rnn_cell(r: StageReader, prefix: str, m: nn.RNNCell, x: torch.Tensor, state: Any) -> torch.Tensor:
    gates = _sum(r, *_gates(r, prefix, m, x, state))
    return _curve(r, gates, Curve.TANH) if m.nonlinearity == "tanh" else r.layer("", nn.ReLU(), gates)


def _lstm_cell(r: StageReader, prefix: str, m: nn.LSTMCell, x: torch.Tensor, states: Any) -> Any:
    state, cell = states or (None, None)
    gates = _sum(r, *_gates(r, prefix, m, x, state))
    kept, forget, new, out = gates.chunk(4, 1)
    own = stage_numbers.multiply(r, _curve(r, kept, Curve.SIGMOID), _curve(r, new, Curve.TANH))
    if cell is not None and not _are_zeros(cell):
        own = stage_numbers.add(r, own, stage_numbers.multiply(r, _curve(r, forget, Curve.SIGMOID), cell))
    out = _curve(r, out, Curve.SIGMOID)
    return stage_numbers.multiply(r, out, _curve(r, own, Curve.TANH)), own


def _gru_cell(r: StageReader, prefix: str, m: nn.GRUCell, x: torch.Tensor, state: Any) -> torch.Tensor:
    own, other = _gates(r, prefix, m, x, state)
    reset, update, new = own.chunk(3, 1)
    if other is not None:
        more_reset, more_update, more_new = other.chunk(3, 1)
        reset, update = stage_numbers.add(r, reset, more_reset), stage_numbers.add(r, update, more_update)
        more_new = stage_numbers.multiply(r, _curve(r, reset, Curve.SIGMOID), more_new)
        new = stage_numbers.add(r, new, more_new)
    update, new = _curve(r, update, Curve.SIGMOID), _curve(r, new, Curve.TANH)
    rest = stage_numbers.multiply(r, stage_numbers.affine(r, update, -1, 1), new)
    return rest if _are_zeros(state) else stage_numbers.add(r, rest, stage_numbers.multiply(r, update, state))


_CELL_LAYERS: dict[Any, Any] = {nn.RNNCell: _rnn_cell, nn.LSTMCell: _lstm_cell, nn.GRUCell: _gru_cell}


__all__ = ["is_recurrent", "module", "reads_cells"]
