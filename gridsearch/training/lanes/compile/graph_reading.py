"""The whole network as stages: each node of a traced graph is taken in, alone or with the part that torch computes.

Stands between the step plan and `stage_calls`, which says what a node calls.

Shapes: B batch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import fx, nn

from gridsearch.errors import said
from gridsearch.training.lanes.compile import stage_calls, stage_layers, stage_weights
from gridsearch.training.lanes.compile.derived_weights import of_parameters
from gridsearch.training.lanes.compile.part_stages import read_part
from gridsearch.training.lanes.compile.rewrite import counts
from gridsearch.training.lanes.compile.stage_reader import StageReader
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.torch_parts import TorchParts, Unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.step_graph import StepGraph
    from gridsearch.training.lanes.compile.torch_parts import Part
    from gridsearch.training.lanes.compile.tracing import Found, Traced


def step_graph(
    model: nn.Module,
    traced: Traced,
    found: Found,
    orders: Mapping[str, Sequence[Order]],
    *,
    training: bool,
) -> StepGraph:
    """Return a traced network as stages.

    Args:
        model: the module that was traced.
        traced: its graph in one mode.
        found: what a sample has shown of it in this mode.
        orders: of each node's inputs, where a lone lane trains, by its name.
        training: the mode.

    Raises:
        NoPlan: it has what is no stage.
    """
    parts, first = TorchParts(traced.graph, found), None
    reading = _Reading(model, traced, found, orders, training=training)
    while True:
        try:
            for unit in parts.units():
                if unit not in reading.done:
                    reading.read(unit, parts)
            return reading.reader.result()
        except Unread as refused:
            first = first or refused
            # what was read of a part's nodes before is right as well; what nobody reads then is left out in the end
            if not parts.take(refused.node, refused.part):
                raise first from None
        except NoPlan as refused:
            raise first or refused from None


class _Reading:
    """A network as far as it is read.

    Args:
        model: the module that was traced.
        traced: its graph.
        found: what a sample has shown of it.
        orders: of each node's inputs, by its name.
        training: the mode.

    Attributes:
        reader: has what was read.
        done: nodes and parts that were read.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: Traced,
        found: Found,
        orders: Mapping[str, Sequence[Order]],
        *,
        training: bool,
    ) -> None:
        self.reader = r = StageReader(model, found, stage_layers.layer, training=training)
        self.done: set[fx.Node | Part] = set()
        self._constants, self._orders = traced.constants, orders
        counting = {
            node: node.args[0] for node in traced.graph.nodes if counts(node, model) and node.args[1] == 1
        }
        r.counted = {str(counter.target) for counter in counting.values()}
        self._passed = {*counting, *counting.values()}
        self._of_no_image = of_parameters(model, traced.graph, found)

    def read(self, unit: fx.Node | Part, parts: TorchParts) -> None:
        """Take in a node or a part.

        Raises:
            Unread: it is no stage.
            NoPlan: torch cannot compute the part for itself.
        """
        if isinstance(unit, fx.Node):
            try:
                self._node(unit)
            except (NoPlan, *stage_calls.REFUSALS) as error:
                raise Unread(unit, said(error)) from error
        else:
            read_part(self.reader, parts.in_order(unit), self._of_no_image)
        self.done.add(unit)

    def _node(self, node: fx.Node) -> None:
        r, of_no_image = self.reader, self._of_no_image
        if node in self._passed:
            return
        r.order = next(iter(self._orders.get(node.name, ())), ())
        if node in of_no_image and node.op != "get_attr":
            take = partial(stage_calls.take, r, node, self._constants)
            stage_weights.derive(r, node, take, stage_calls.REFUSALS, read=of_no_image[node])
            return
        stage_weights.read_weights(r, node, of_no_image)
        if (product := stage_weights.product(r, node, of_no_image)) is not None:
            r.set(node, product)
            return
        stage_calls.take(r, node, self._constants)
