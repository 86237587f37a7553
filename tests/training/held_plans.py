"""Trains the lanes of a case of `random_plans` as a pack and each by a plain loop, and compares."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime import built_plan
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import build_network, pays_channels_last
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from tests.training.plain_loop import Plain, train_plainly
from tests.training.random_plans import CPU, EPOCHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.plugins import ImageData
    from tests.training.random_plans import Case

_ALLOWED = {"float64": (30.0, 1e-9), "float32": (30.0, 1e-4), "bfloat16": (8.0, 0.05)}
_NUDGES = 3


@dataclass
class Trained:
    """What came of a case's lanes, each by its number.

    Attributes:
        method: how they trained; "planned" where by compiled calls.
        losses: mean training losses by epoch, fewer for a lane that left early.
        logits: of the validation images after its last epoch; None for a lane that diverged.
        weights: its tensors then.
        warnings: why compiled code was left out.
    """

    method: str
    losses: dict[int, list[float]]
    logits: dict[int, torch.Tensor | None]
    weights: dict[int, dict[str, torch.Tensor]]
    warnings: list[str]


def train(case: Case, lanes: Sequence[int], *, leaves: bool) -> Trained:
    """Train some lanes of a case.

    Args:
        case: the case.
        lanes: the numbers of those that train together.
        leaves: every other lane leaves after the first epoch.

    Raises:
        Exception: whatever the network raises.
    """
    data = ResidentCache(case.images(), device="cpu")(case.settings[0])
    precision = Precision.of(case.settings[0].dtype, CPU)
    models = [build_network(case.settings[k], case.seeds[k], data, case.make, precision) for k in lanes]
    found = Trained("", {k: [] for k in lanes}, {}, {}, [])
    try:
        with mock.patch.object(built_plan, "_aligned", _full_of_nan), _listening(found.warnings):
            members = [Member(case.settings[k], case.seeds[k]) for k in lanes]
            pack = PackProgram(members, models, data, precision)
    except NotPackable:
        return _train_alone(case, lanes, found, data, precision, leaves=leaves)
    found.method = "planned" if pack.planned else pack.network.method
    there = list(lanes)
    for epoch in range(EPOCHS):
        results, scores = pack.train_epoch(), pack.evaluate()
        for slot, (k, result, score) in enumerate(zip(there, results, scores, strict=True)):
            if isinstance(result, Diverged):
                found.losses[k].append(float("nan"))
                found.logits[k] = None
                continue
            found.losses[k].append(result.loss)
            assert score is not None
            found.logits[k], found.weights[k] = score.logits.clone(), pack.lane_state(slot).weights
        if leaves and epoch == 0 and len(there) > 1:
            stay = list(range(1, len(there), 2))
            pack.compact(stay)
            there = [there[slot] for slot in stay]
    pack.close()
    return found


@contextlib.contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    """Take note of the warnings of the product's log."""
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("gridsearch")
    handler.emit = lambda record: heard.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _full_of_nan(size: int, own: Any = built_plan._aligned) -> torch.Tensor:
    """Return memory for a plan of which nothing may be read that was not written."""
    return own(size).fill_(255)


def _train_alone(
    case: Case, lanes: Sequence[int], found: Trained, data: Any, precision: Precision, *, leaves: bool
) -> Trained:
    """Train lanes one after the other."""
    found.method = "solo"
    for place, k in enumerate(lanes):
        solo = SoloProgram(case.settings[k], case.seeds[k], data, case.make, precision)
        for epoch in range(1, EPOCHS + 1):
            if leaves and epoch > 1 and len(lanes) > 1 and place % 2 == 0:
                break
            try:
                found.losses[k].append(solo.train_epoch(epoch).loss)
            except Diverged:
                found.losses[k].append(float("nan"))
                found.logits[k] = None
                break
            score = solo.evaluate(epoch)
            assert score is not None
            found.logits[k] = score.logits
    return found


def hold(case: Case) -> str:
    """Train a case and compare each lane with plain loops; return in a word how it went.

    Returns:
        the lanes' method; with "refused" where a plain loop fails likewise, with "unstable" where rounding decides.

    Raises:
        AssertionError: a lane differs.
        Exception: whatever the product raises that a plain loop does not.
    """
    lanes, images = range(len(case.settings)), case.images()
    leaves = case.number % 3 == 0
    refused = ""
    plain: list[Plain | None] = []
    for k in lanes:
        try:
            plain.append(_plain(case, k, images, leaves=leaves))
        except (RuntimeError, ValueError) as error:  # a batch norm of one value
            refused = str(error)
            plain.append(None)
    if refused:
        try:
            train(case, lanes, leaves=leaves)
        except (RuntimeError, ValueError) as error:
            return f"refused: {error}"[:60]
        raise AssertionError(f"trains what a plain loop refuses: {refused}")
    try:
        found = train(case, lanes, leaves=leaves)
    except RuntimeError as error:
        if _trains_contiguous(case, images):
            raise
        return f"refused: {error}"[:60]
    words = found.method
    if found.warnings:
        assert case.settings[0].dtype == "bfloat16", found.warnings
        words += f" warned: {found.warnings[0]}"
    for k in lanes:
        words += _hold_lane(case, k, images, found, plain[k])
    if found.method == "planned":
        k = case.number % len(lanes)
        alone = train(case, [k], leaves=False)
        if len(alone.losses[k]) == len(found.losses[k]) and alone.method == "planned" and k in found.weights:
            for name, tensor in found.weights[k].items():
                assert torch.equal(alone.weights[k][name], tensor), f"{name} of lane {k} alone is another"
    return words


def _trains_contiguous(case: Case, images: ImageData) -> bool:
    """Whether a plain loop trains with contiguous maps too, of which views show what is then changed in place."""
    try:
        train_plainly(case.make, case.settings[0], case.seeds[0], images)
    except RuntimeError:
        return False
    return True


def _plain(case: Case, k: int, images: ImageData, *, leaves: bool, **how: Any) -> Plain:
    """Train a lane by a plain loop, for as many epochs as it trains in its pack."""
    short = leaves and len(case.settings) > 1 and k % 2 == 0
    settings = dataclasses.replace(case.settings[k], epochs=1 if short else EPOCHS)
    how["channels_last"] = pays_channels_last(case.make(), Precision.of(settings.dtype, CPU))
    return train_plainly(case.make, settings, case.seeds[k], images, **how)


def _hold_lane(case: Case, k: int, images: ImageData, found: Trained, plain: Plain | None) -> str:
    """Compare a lane with plain loops; return a word where nothing can be said.

    Raises:
        AssertionError: it differs.
    """
    assert plain is not None
    dtype, logits = case.settings[k].dtype, found.logits[k]
    if logits is None or not bool(torch.isfinite(plain.logits).all()) or plain.logits.abs().max() > 1e4:
        return " unstable"
    gap = _distance(found.losses[k], logits.double(), plain)
    times, besides = _ALLOWED[dtype]
    if gap <= besides:
        return ""
    theirs = _rounding(case, k, images, plain)
    assert gap <= besides + times * theirs, (
        f"lane {k} ({found.method}, {dtype}) is {gap:.1e} from a plain loop, rounding takes one {theirs:.1e} away"
    )
    return " unstable" if dtype == "float64" else ""


def _rounding(case: Case, k: int, images: ImageData, plain: Plain) -> float:
    """How far rounding takes a lane's plain loop from itself: one of its type, and ones in float64 that are nudged."""
    dtype, leaves = case.settings[k].dtype, case.number % 3 == 0
    own = torch.float64 if dtype == "float64" else torch.float32
    how: list[dict[str, Any]] = [
        {"nudge": torch.finfo(own).eps, "nudge_seed": seed} for seed in range(_NUDGES)
    ]
    if dtype != "float64":
        how.append({"dtype": torch.float32, "rounds": dtype == "bfloat16"})
    others = [_plain(case, k, images, leaves=leaves, **kwargs) for kwargs in how]
    return max(_distance(other.losses, other.logits.double(), plain) for other in others)


def _distance(losses: Sequence[float], logits: torch.Tensor, plain: Plain) -> float:
    """How far losses and logits are from a plain loop's, as a share of the largest."""
    apart = max(abs(a - b) / (1 + abs(b)) for a, b in zip(losses, plain.losses, strict=True))
    largest = max(1.0, plain.logits.abs().max().item())
    return max(apart, (logits - plain.logits).abs().max().item() / largest)
