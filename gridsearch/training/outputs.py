"""The files that a finished lane leaves in its scratch folder, for the coordinator to adopt.

predictions.safetensors  logits float16 [N, Y], labels int64 [N], indices int64 [N] into the training set
weights.safetensors      the model's state_dict; a tied tensor is written under each of its names
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import safetensors.torch
import torch

from gridsearch.errors import unwritable
from gridsearch.records import FileRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREDICTIONS = "predictions.safetensors"
WEIGHTS = "weights.safetensors"


def write_predictions(
    folder: Path, *, logits_NY: torch.Tensor, labels_N: torch.Tensor, indices_N: torch.Tensor
) -> FileRef:
    """Write what a lane says of the validation images; logits beyond float16's range are cut to it."""
    most = torch.finfo(torch.float16).max
    tensors = {
        "logits": logits_NY.clamp(-most, most).to("cpu", torch.float16),
        "labels": labels_N.to("cpu"),
        "indices": indices_N.to("cpu"),
    }
    return write_file(folder, PREDICTIONS, safetensors.torch.save(tensors))


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
