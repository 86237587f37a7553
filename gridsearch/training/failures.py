"""What is said of a lane that raised: one line for the table, the user's own traceback for the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gridsearch.errors import GridsearchError, cut, said, traced
from gridsearch.records import TrialFailed
from gridsearch.training.model_outputs import ModelRefused

if TYPE_CHECKING:
    from types import TracebackType

    from gridsearch.records import ImageSettings, Lane

_NO_GPU = ("not compiled with CUDA", "Found no NVIDIA driver", "No CUDA GPUs are available")
"""What torch says where code asks for a GPU on a machine without one."""

_OF_SHAPES = ("shape", "size", "channel", "dimension")
"""Words of torch about what does not fit."""

_IMAGES = "the images are"

_OURS = Path(__file__).parent
_TORCH = Path(torch.__file__).parent


def failure(lane: Lane[ImageSettings], error: BaseException) -> TrialFailed:
    """Return the event of a lane whose model or data raised."""
    reason = "oom" if is_out_of_memory(error) else "error"
    own = _from_user_code(error.__traceback__)
    if isinstance(error, ModelRefused | GridsearchError):
        text = said(error)
    else:
        text = traced(error, own)
    return TrialFailed(
        trial=lane.trial.id,
        attempt=lane.trial.attempt,
        reason=reason,
        message=_one_line(error, own),
        traceback=text,
    )


def note_images(error: BaseException, images: tuple[int, int, int]) -> None:
    """Note on what a model raises of the first images what these are, if it is about shapes.

    Args:
        error: what it raises.
        images: (C, H, W).
    """
    if any(word in said(error) for word in _OF_SHAPES) and not is_out_of_memory(error):
        channels, height, width = images
        gets = f"in_channels={channels}, image_size={height if height == width else (height, width)}"
        error.add_note(
            f"{_IMAGES} {channels}x{height}x{width}; its constructor gets {gets} where it takes that"
        )


def mend(error: BaseException) -> str:
    """Return how to mend what a model raised, as the end of a line; "" where that cannot be told."""
    if any(words in said(error) for words in _NO_GPU):
        return '; leave `.cuda()` and "cuda" out of its code: it is put on the device that trains it'
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_IMAGES)]
    return "".join(f"; {note}" for note in notes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the host's memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = said(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator: can't allocate memory" in text or "out of memory" in text
    )


def _one_line(error: BaseException, own: TracebackType | None) -> str:
    text = " ".join(said(error).split())
    if isinstance(error, ModelRefused | GridsearchError):
        return text
    text = cut(text)
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _innermost_user_frame(own)
    return (f"{line} ({place})" if place else line) + mend(error)


def _from_user_code(tb: TracebackType | None) -> TracebackType | None:
    """Cut our frames and torch's call machinery from the top; None if there is nothing else."""
    while tb is not None and _is_machinery(tb):
        tb = tb.tb_next
    return tb


def _innermost_user_frame(tb: TracebackType | None) -> str | None:
    place = None
    while tb is not None:
        if not _is_machinery(tb):
            place = f"{Path(tb.tb_frame.f_code.co_filename).name}:{tb.tb_lineno}"
        tb = tb.tb_next
    return place


def _is_machinery(tb: TracebackType) -> bool:
    file = Path(tb.tb_frame.f_code.co_filename)
    return file.is_relative_to(_OURS) or file.is_relative_to(_TORCH)
