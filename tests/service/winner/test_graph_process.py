"""A graph that somebody has altered is refused or fails, with little memory, in little time, and alone."""

from __future__ import annotations

import os
import signal

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from gridsearch.service.winner import graph_process
from gridsearch.service.winner.graph_process import GraphFailed, GraphProcess
from gridsearch.service.winner.onnx_graph import WrongGraph
from gridsearch.training.onnx_check import problem_of

TAKES, CLASSES = (1, 2, 2), 4
PIXELS = np.zeros((3, *TAKES), np.float32)


def graph(*nodes, initializers=(), **more) -> onnx.ModelProto:
    """Return a model from pixels to logits; its last node gives the logits."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", *TAKES])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    made = helper.make_graph(list(nodes), "g", [pixels], [logits], initializer=list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, **more)


def flatten(source: str = "pixels") -> onnx.NodeProto:
    return helper.make_node("Flatten", [source], ["logits"])


def loop() -> onnx.NodeProto:
    """10^12 rounds of nothing."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    here = [
        helper.make_tensor_value_info(n, t, [])
        for n, t in (("i", TensorProto.INT64), ("c", TensorProto.BOOL))
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["x"], ["y"])],
        "body", [*here, value[0]], [helper.make_tensor_value_info("d", TensorProto.BOOL, []), value[1]],
    )  # fmt: skip
    return helper.make_node("Loop", ["rounds", "", "pixels"], ["out"], body=body)


def hollow(dims: list[int], **fields) -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, **fields)


ROUNDS = helper.make_tensor("rounds", TensorProto.INT64, [], [10**12])
OUTSIDE = hollow([1], data_location=TensorProto.EXTERNAL)
BRANCH = helper.make_graph([loop()], "b", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
OWN = helper.make_function("own", "f", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [])

REFUSED = {
    "a loop": (graph(loop(), flatten("out"), initializers=[ROUNDS]), "it has a loop (operator Loop)"),
    "a loop in a branch": (
        graph(helper.make_node("If", ["c"], ["out"], then_branch=BRANCH, else_branch=BRANCH), flatten("out")),
        "it has a loop",
    ),
    "an operator of others": (graph(helper.make_node("Run", ["pixels"], ["logits"], domain="com.evil")), "'Run'"),
    "an operator that is none": (graph(helper.make_node("Flattenn", ["pixels"], ["logits"])), "'Flattenn'"),
    "a function": (graph(flatten(), functions=[OWN]), "operators of its own"),
    "weights in another file": (graph(flatten(), initializers=[OUTSIDE]), "in another file"),
    "a constant in another file": (
        graph(helper.make_node("Constant", [], ["k"], value=OUTSIDE), flatten()), "in another file",
    ),
    "60 GB that are not there": (graph(flatten(), initializers=[hollow([15 * 10**9])]), "less in it than it says"),
    "60 GB of 4 bytes": (
        graph(flatten(), initializers=[hollow([15 * 10**9], raw_data=b"1234")]), "less in it than it says",
    ),
    "a negative size": (graph(flatten(), initializers=[hollow([-2, -2], raw_data=b"1" * 16)]), "less in it"),
    "100,001 operators": (graph(*[flatten()] * 100_001), "it has 100,001 operators, and at most 100,000"),
    "no graph": (onnx.ModelProto(), "other inputs and outputs"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_graph_that_no_export_holds_is_refused_before_it_is_run(what):
    proto, reason = REFUSED[what]
    assert reason in (problem_of(proto) or "")
    assert problem_of(graph(flatten())) is None


def test_a_process_runs_a_graph_and_ends_with_what_has_started_it():
    found = GraphProcess(graph(flatten()).SerializeToString(), takes=TAKES, classes=CLASSES)
    pixels = np.arange(12, dtype=np.float32).reshape(PIXELS.shape)
    assert (found(pixels) == pixels.reshape(3, 4)).all()
    (child,) = [p for p in psutil.Process().children() if p.pid == found._process.pid]
    del found
    assert not child.is_running()


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"no graph", GraphFailed, "DecodeError"),
        (REFUSED["a loop"][0].SerializeToString(), WrongGraph, "a loop"),
    ],
)
def test_what_is_refused_is_an_error_of_its_process(content, error, reason):
    with pytest.raises(error, match=reason):
        GraphProcess(content, takes=TAKES, classes=CLASSES)


def test_a_graph_that_asks_for_more_memory_than_it_may_have_fails_in_its_process_alone(monkeypatch):
    assert graph_process.most_memory() < psutil.virtual_memory().total or psutil.virtual_memory().total < 8e9
    monkeypatch.setattr(graph_process, "most_memory", lambda: 1 << 30)
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["much"]),
        helper.make_node("ReduceSum", ["much"], ["sum"], keepdims=0),
        helper.make_node("Add", ["pixels", "sum"], ["out"]),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [10**9])
    content = graph(*nodes, flatten("out"), initializers=[shape]).SerializeToString()
    with pytest.raises(
        GraphFailed, match=r"(?i)memory|alloc|killed"
    ):  # where it is made depends on what runs it
        GraphProcess(content, takes=TAKES, classes=CLASSES)(PIXELS)


def test_a_graph_that_takes_too_long_is_ended_with_its_process(monkeypatch):
    side, rounds = 2000, 400
    nodes = [helper.make_node("ReduceSum", ["pixels"], ["sum"], keepdims=0)]
    nodes += [
        helper.make_node("ConstantOfShape", ["shape"], ["zero"]),
        helper.make_node("Add", ["zero", "sum"], ["x0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(rounds)]
    nodes += [helper.make_node("ReduceSum", [f"x{rounds}"], ["all"], keepdims=0)]
    nodes += [helper.make_node("Add", ["pixels", "all"], ["out"])]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [side, side])
    content = graph(*nodes, flatten("out"), initializers=[shape]).SerializeToString()
    found = GraphProcess(content, takes=TAKES, classes=CLASSES)
    monkeypatch.setattr(graph_process, "START_SECONDS", 0.2)
    monkeypatch.setattr(graph_process, "IMAGE_SECONDS", 0.1)
    with pytest.raises(GraphFailed, match="longer than"):
        found(PIXELS)
    assert found._process.poll() == -signal.SIGKILL


def test_a_process_that_crashes_is_an_error_here():
    found = GraphProcess(graph(flatten()).SerializeToString(), takes=TAKES, classes=CLASSES)
    os.kill(found._process.pid, signal.SIGSEGV)
    with pytest.raises(GraphFailed, match="killed by SIGSEGV"):
        found(PIXELS)
