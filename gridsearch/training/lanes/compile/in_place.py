"""Operations of a traced graph that change an argument in place, which rules of the rewrite compute out of place.

Stands between the tracing of a model and its rewrite.
"""

from __future__ import annotations

from torch import fx, nn

from gridsearch.training.lanes.compile.lane_values import NotStackable

_VIEWS = {"view", "reshape", "flatten", "transpose", "permute", "squeeze", "unsqueeze", "contiguous", "chunk"}
_VIEWS |= {"getitem", "split", "t", "expand", "unflatten", "swapaxes", "to", "float"}


def read_what_was_changed(graph: fx.Graph, model: nn.Module) -> None:
    """Let what comes after a change in place read its result, which is the tensor that it has changed."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.args[0] if _in_place(node, model) and node.args else None
        if isinstance(changed, fx.Node) and changed.op != "get_attr":
            for later in [user for user in changed.users if place[user] > place[node]]:
                later.replace_input_with(changed, node)


def check_in_place(node: fx.Node, model: nn.Module) -> None:
    """Refuse a change in place of what is used elsewhere too; rules compute out of place.

    Raises:
        NotStackable: there is such a change.
    """
    if not _in_place(node, model):
        return
    changed = node.args[0] if node.args else None
    while isinstance(changed, fx.Node):
        if len(changed.users) != 1 or changed.op == "get_attr":
            raise NotStackable(
                f"{getattr(node.target, '__name__', node.target)} changes in place what is used elsewhere"
            )
        name = getattr(changed.target, "__name__", str(changed.target))
        module = model.get_submodule(str(changed.target)) if changed.op == "call_module" else None
        shows = name in _VIEWS or isinstance(module, nn.Flatten | nn.Identity | nn.Unflatten | nn.Dropout)
        changed = changed.args[0] if (shows or _in_place(changed, model)) and changed.args else None


def _in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    if node.kwargs.get("inplace") or (
        node.op == "call_function" and name in ("iadd", "isub", "imul", "itruediv")
    ):
        return True
    if node.op == "call_function" and name in ("relu", "leaky_relu", "dropout", "elu", "silu", "hardtanh"):
        place = {"relu": 1, "leaky_relu": 2, "elu": 2, "silu": 1, "hardtanh": 3, "dropout": 3}[name]
        return len(node.args) > place and node.args[place] is True
    return name.endswith("_") and not name.endswith("__")
