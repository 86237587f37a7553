"""The files that a finished lane leaves in its scratch folder, for the coordinator to adopt.

predictions.safetensors  logits [N, Y], predicted uint8 or int32 [N], labels int64 [N], indices int64 [N] into the
                         training set
weights.safetensors      the model's state_dict; a tied tensor is written under each of its names

The class of an image is stored as it was computed, so that accuracy and every count of images are those of the trial,
exactly.  Logits are for probabilities: float16 where the loss from them is within `LOSS_ROUNDING` of the trial's, else
float32 (those beyond 65504, and where the loss is so small that it lies in their last digits).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.errors import unwritable
from gridsearch.files import PREDICTIONS, WEIGHTS
from gridsearch.records import FileRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridsearch.training.metrics import Evaluation

LOSS_ROUNDING: Final = 1e-3
"""The loss from stored logits is the trial's to within this, relatively."""

_LEAST_LOSS: Final = 1e-7
"""A loss is computed in float32, where that of a probability beside 1 has no digits below this."""
_KEPT: Final = (torch.float16, torch.float32, torch.float64)


def write_predictions(
    folder: Path, *, found: Evaluation, labels_N: torch.Tensor, indices_N: torch.Tensor
) -> FileRef:
    """Write what a lane says of the validation images.

    Raises:
        StoreError: it cannot be written.
        ArithmeticError: what would be stored says something else than the lane's accuracy and loss.
    """
    labels_N = labels_N.to("cpu")
    predicted_N = found.logits.argmax(1).to("cpu")
    right = int((predicted_N == labels_N).sum()) / len(labels_N)
    logits_NY = found.logits.to("cpu")
    kept = next((k for d in _KEPT if _agrees(k := logits_NY.to(d), labels_N, found.loss)), None)
    if right != found.accuracy or kept is None:
        raise ArithmeticError(
            f"the predictions of {len(labels_N)} images do not give the accuracy {found.accuracy} and the loss "
            f"{found.loss} that were computed from them (but {right}): the device or the model is not to be trusted"
        )
    small = found.logits.shape[1] <= torch.iinfo(torch.uint8).max + 1
    tensors = {
        "logits": kept,
        "predicted": predicted_N.to(torch.uint8 if small else torch.int32),
        "labels": labels_N,
        "indices": indices_N.to("cpu"),
    }
    return write_file(folder, PREDICTIONS, safetensors.torch.save(tensors))


def _agrees(logits_NY: torch.Tensor, labels_N: torch.Tensor, loss: float) -> bool:
    again = float(F.cross_entropy(logits_NY.double(), labels_N))
    return math.isclose(again, loss, rel_tol=LOSS_ROUNDING, abs_tol=_LEAST_LOSS)


def write_weights(folder: Path, state: Mapping[str, object]) -> FileRef:
    """Write a state_dict; entries that are not tensors (a module's extra state) are left out."""
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        tensor = value.detach().to("cpu").contiguous()
        if tensor.dtype is torch.complex128:  # which the format does not have
            tensor = tensor.to(torch.complex64)
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return write_file(folder, WEIGHTS, safetensors.torch.save(tensors))


def write_file(folder: Path, name: str, content: bytes) -> FileRef:
    """Write a file into a folder, which is made if it is not there.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    except OSError as error:
        raise unwritable(folder / name, error) from error
    return FileRef(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
