"""Runs an exported ONNX graph: by ONNX Runtime where it is installed, else by onnx's reference evaluator in numpy.

Stands below `graph_process`, which bounds what a graph may take.  Neither runs code of the model's author, and neither
needs torch.  ONNX Runtime is many times as fast.  Both give the same probabilities but for `ROUNDING`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gridsearch.training.onnx_check import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Run: TypeAlias = Callable[[np.ndarray], np.ndarray]
    """From pixels [B, C, H, W] to logits [B, Y], float64."""

ROUNDING: Final = 1e-4
"""By how much a probability may differ between the two; tested on networks of the zoo, where it is below 1e-5."""

_ERRORS_ONLY: Final = 3
"""ONNX Runtime's level of messages: it warns of every graph."""


class WrongGraph(ValueError):
    """A graph that cannot be used; the message is one line."""


def runtime() -> str:
    """Return what runs graphs here: "onnxruntime" or "reference"."""
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") is not None else "reference"


def prepare(content: bytes, *, takes: tuple[int, ...], classes: int, by: str | None = None) -> Run:
    """Return what runs a graph.

    Args:
        content: of the ONNX file.
        takes: (C, H, W) of the images that it is said to take.
        classes: Y.
        by: "onnxruntime" or "reference"; default: the first that is here.

    Raises:
        WrongGraph: it takes other images, or is none that this program exports.
        Exception: it is no graph, or cannot be run.
    """
    import onnx

    proto = onnx.load_model_from_string(content)
    if (problem := problem_of(proto)) is not None:
        raise WrongGraph(problem)
    shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:])
    if shape != takes:
        raise WrongGraph(f"it takes images {shape}, not {takes}")
    evaluate = session(content) if (by or runtime()) == "onnxruntime" else _by_reference(proto)

    def run(pixels_BCHW: np.ndarray) -> np.ndarray:
        import numpy as np

        (logits_BY,) = evaluate.run(None, {"pixels": pixels_BCHW})
        return np.asarray(logits_BY, dtype=np.float64).reshape(len(pixels_BCHW), classes)

    return run


def session(content: bytes, *, threads: int | None = None) -> Any:
    """Return a session of ONNX Runtime, on the CPU.

    Args:
        content: of the ONNX file.
        threads: for its arithmetic; default: as ONNX Runtime sees fit.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would write an identifier into the user's folder
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _by_reference(proto: Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(proto)
