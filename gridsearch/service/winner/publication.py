"""Publishes the winner that was tested: its model card and description, the record of the test, the exported files.

Stands after the refit, whose worker has read the test images, and before the folder that `predict` reads.  A test is
recorded before its export gets its place, so that a kill in between loses no reading: the next `best` puts it there.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gridsearch import files, reporting
from gridsearch.errors import StoreError
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.service.run.machine import environment
from gridsearch.service.run.patience import patiently
from gridsearch.service.winner.choice import ranked_by
from gridsearch.service.winner.exported import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from gridsearch.records import DataFacts, Exported, StudyData
    from gridsearch.service.run.progress import Observer
    from gridsearch.service.winner.choice import Winner
    from gridsearch.store import Store

_FAR = 0.1
"""Of all test images: what chance in the choice of the winner, and in few images, hardly explains."""

_NAMED = 3

_VERSIONS = ("gridsearch", "python", "torch", "numpy")  # what matters elsewhere; nothing about the machine


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known when the test images have been read, before it is recorded."""

    data: StudyData
    winner: Winner
    exported: Exported
    seeds: tuple[int, ...]
    images: DataFacts


def publish(
    store: Store, finding: Finding, export: Path, watcher: Observer, *, patience: float
) -> dict[str, Any]:
    """Complete the export, record the test, put the export into its place: in this order.

    Args:
        store: gets the test.
        finding: what was tested.
        export: the folder in which a worker has left the model's files.
        watcher: gets cautions.
        patience: seconds for which a store that is away is waited for.

    Returns:
        The test as the store has it.

    Raises:
        StudyDeleted: the study is gone.
        StoreError: another `best` has recorded a test meanwhile.
    """
    import safetensors.numpy

    home, study, winner = store.home, finding.data.name, finding.winner
    before = finding.data.test
    nth = 1 if before is None else int(before["reading"]) + 1
    tensors = safetensors.numpy.load((export / files.TEST_OUTPUTS).read_bytes())
    ready = home.best_work(study) / secrets.token_hex(8)
    test = _tested(finding, tensors["logits"], tensors["labels"], nth=nth) | {"export": ready.name}
    model = describe(finding, test)
    told = (*_beside(finding.exported.facts["beside"]), *_far_below(winner, test))
    card = reporting.model_card(
        model,
        classes=reporting.classes(tensors["logits"][0], tensors["labels"], model["classes"]),
        ranked_by=ranked_by(finding.data, winner),
        cautions=(*winner.notes, *told),
    )
    with home.writing(ready):
        _complete(export, model, card, ready)
    if not patiently(lambda: _record(store, finding.data, test, nth), patience=patience, say=watcher.say):
        shutil.rmtree(ready, ignore_errors=True)
        raise StoreError(
            f"another `best` has recorded the test of study {study!r} meanwhile",
            hint=f"`{finding.data.again.best()}` shows it",
        )
    home.publish_best(study, ready.name)
    for caution in told:
        watcher.warn(caution)
    if "error" in model["graph"]:
        why = model["graph"]["error"]
        watcher.warn(
            f"no {files.GRAPH}, and so nothing for predict to run: the network cannot be exported ({why})"
        )
    return test


def _record(store: Store, data: StudyData, test: Mapping[str, Any], nth: int) -> bool:
    """Record a test, perhaps for the second time; return False if somebody else recorded that reading meanwhile."""
    if store.record_test(data.id, test, nth=nth):
        return True
    there = store.study_data(data.name).test  # ours, where the store was lost right after its commit
    return there is not None and there["export"] == test["export"]


def _tested(finding: Finding, logits_SNY: np.ndarray, labels: np.ndarray, *, nth: int) -> dict[str, Any]:
    """Return what the store records of a test, the nth of the study.

    Args:
        finding: what was tested.
        logits_SNY: of S seeds and N test images for Y classes.
        labels: [N].
        nth: from 1.
    """
    winner = finding.winner
    return {
        **reporting.evaluate(logits_SNY, labels, seeds=finding.seeds),
        "chosen_by": reporting.chosen_by(
            logits_SNY,
            labels,
            metric=winner.ranking.metric,
            class_names=finding.exported.facts["classes"],
        ),
        "params": winner.point.params,
        "trial": winner.point.trials[0].number,
        "point": winner.id,
        "epochs": winner.settings.epochs,
        "exported_seed": finding.seeds[0],
        "clean": nth == 1,
        "reading": nth,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _complete(export: Path, model: Mapping[str, Any], card: str, ready: Path) -> None:
    """Write what describes a model beside its files, and put all of them into a new folder."""
    (export / files.MODEL).write_text(json.dumps(model, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (export / files.CARD).write_text(card, encoding="utf-8", errors="replace")
    ready.mkdir()
    names = [files.MODEL, files.CARD, *model["files"]]
    files.put_all_in_place([(export / name, ready / name) for name in names])


def _beside(names: Sequence[str]) -> tuple[str, ...]:
    """Return a caution where the weights alone do not make the network that was tested."""
    if not names:
        return ()
    shown = ", ".join(names[:_NAMED]) + (", ..." if names[_NAMED:] else "")
    caution = (
        f"training changes what the network's state_dict lacks ({shown}): {files.MODEL_WEIGHTS} is without it, "
        f"{files.GRAPH} and the test have it"
    )
    return (caution,)


def _far_below(winner: Winner, test: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a caution where the test accuracy lies further below the validation accuracy than chance explains.

    Chance is that of both: a few validation images are as lucky as a few test images (the interval of a difference
    from those of its parts, R. G. Newcombe, Statistics in Medicine 17, 1998).
    """
    held_out = [m[ACCURACY] for t in winner.point.trials if ACCURACY in (m := t.metrics)]
    if not held_out:
        return ()
    validated = fmean(held_out)
    lowest = winner.point.ci_low if winner.ranking.metric == ACCURACY else None
    above = 0.0 if lowest is None else max(0.0, validated - lowest)
    if validated - test["accuracy"] <= max(_FAR, math.hypot(above, test["ci_high"] - test["accuracy"])):
        return ()
    caution = (
        f"the test accuracy, {100 * test['accuracy']:.2f} %, is far below the validation accuracy, "
        f"{100 * validated:.2f} %: check whether the test images and labels "
        "are of the same kind as the training images"
    )
    return (caution,)


def describe(finding: Finding, test: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of model.json."""
    facts, settings, data = finding.exported.facts, finding.winner.settings, finding.data
    return {
        "schema": SCHEMA,
        "study": data.name,
        "dataset": {
            "name": settings.dataset,
            "fingerprint": settings.data_fingerprint,
            "described": finding.images.described,
            "doubts": list(finding.images.doubts),
        },
        "model": {
            "name": settings.model,
            "options": dict(settings.model_options),
            "source": settings.model_source,
            "parameters": facts["parameters"],
        },
        "classes": list(facts["classes"]),
        "input": facts["input"],
        "normalization": facts["normalization"],
        "graph": facts["graph"],
        "files": {
            ref.name: {"sha256": ref.sha256, "size": ref.size}
            for ref in finding.exported.files
            if ref.name in (files.MODEL_WEIGHTS, files.GRAPH)
        },
        "seed": finding.seeds[0],
        "trained_on": facts["trained_on"],
        "recipe": settings.flat(),
        "test": {name: value for name, value in test.items() if name != "export"},
        "versions": {name: version for name, version in environment().items() if name in _VERSIONS},
    }
