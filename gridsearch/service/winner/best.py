"""What `best` does, step by step: train the winner again, read the test set, record that, publish the export.

The test images count as read when the store says so, and it says so in one transaction after all files of the
export are on the disk.  If `best` ends before that, the study is as it was; if it ends after that, the next call
finds the complete export and puts it in its place.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gridsearch import files, reporting
from gridsearch.errors import StoreError, StudyDeleted, UsageError
from gridsearch.records import ImageSettings, trial_key
from gridsearch.service.prepare.stored import check_models, find_again, of_named_code, present
from gridsearch.service.queries.studies import existing
from gridsearch.service.run import interruption
from gridsearch.service.run.progress import Observer, Silent
from gridsearch.service.run.workers import devices_for, starter, worker_setups
from gridsearch.service.winner.choice import choose, ranked_by
from gridsearch.service.winner.publication import Finding, publish
from gridsearch.service.winner.refit import Interrupted, NothingTrained, Refit
from gridsearch.zoo.datasets.cache import exclusive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gridsearch.records import StudyData, Value
    from gridsearch.service.prepare.catalog import Catalog
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.winner.choice import Winner
    from gridsearch.store import Home, Store
    from gridsearch.zoo.datasets.cache import Hold


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BestOutcome:
    """What `best` found, now or when it was called first.

    Attributes:
        test: the result on the test images, None after an interruption.
        fresh: whether they were read now.
        changed: whether another point leads by now, not the one that was tested.
        folder: where the exported model lies.
        signum: the signal that ended it, or None.
        kept: after an interruption, the epoch of `epochs` from which the next call goes on; 0 for the first.
    """

    study: str
    test: Mapping[str, Any] | None
    fresh: bool
    changed: bool
    folder: Path
    signum: int | None = None
    kept: int = 0
    epochs: int = 0

    def __repr__(self) -> str:
        """Return one line: what the test images said, and where the model lies."""
        found = "no test" if self.test is None else f"test accuracy {100 * self.test['accuracy']:.2f} %"
        return f"<BestOutcome of study {self.study!r}: {found}, exported to {self.folder}>"

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON, schema 1."""
        return {
            "schema": 1,
            "study": self.study,
            "test": None if self.test is None else dict(self.test),
            "fresh": self.fresh,
            "winner_changed": self.changed,
            "folder": str(self.folder) if self.folder.is_dir() else None,
        }


def best(
    study: str,
    options: RunOptions,
    *,
    where: Mapping[str, Value] | None = None,
    again: bool = False,
    observer: Observer | None = None,
    dataset: Any = None,
    models: Sequence[str] = (),
    objects: Mapping[str, Any] | None = None,
) -> BestOutcome:
    """Refit the winner on training and validation images, read the test images once, export the model.

    Args:
        study: the study's name.
        options: where things are, and how to train.
        where: only the trials where all of these hold, as in a report.
        again: read the test images although they were read before.
        observer: gets progress.
        dataset: locator of the dataset, or the class or function itself; needed only for a user's own.
        models: locators of models, needed only for a user's own.
        objects: models given as classes or functions, by name.

    Raises:
        StudyNotFound: there is no such study.
        StoreError: no trial has a result, or files cannot be written.
        UsageError: a user's own file is needed and was not named, or has changed.
        TrainingFailed: the winner could not be trained again.
    """
    watcher = observer or Silent()
    with existing(options.places) as store:
        data = store.study_data(study)
        _refuse_functions(data)
        store.take_folder(study)
        if data.test is not None and not again:
            if dataset is not None or models or objects:
                watcher.warn("the test set was used before: without --again neither data nor a model is used")
            winner = choose(store, reporting.filter_data(data, where or {}))
            return _recorded(store, data, winner, watcher)
        device = devices_for(options, data.kind)[0]
        spec = store.spec(study)
        catalog = find_again(
            data,
            spec,
            options.places,
            dataset=dataset,
            models=[*models, *(objects or ())],
            objects=objects,
            say=watcher.say,
        )
        part = present(reporting.filter_data(data, where or {}), catalog, spec, say=watcher.say)
        winner = choose(store, of_named_code(part, catalog, say=watcher.say))
        check_models(data, catalog, spec, [ImageSettings.of(winner.point.settings)])
        work = store.home.best_work(study)
        with ExitStack() as stack:
            with store.home.writing(work):
                hold = stack.enter_context(exclusive(work, say=watcher.say))
            now = store.study_data(study)
            _require_same(data, now.id)
            if now.test is not None:
                if not again:  # another `best` was first while we waited for it
                    return _recorded(store, now, winner, watcher)
                store.home.publish_best(study, now.test["export"])
            try:
                return _test(store, now, winner, catalog, options, device=device, hold=hold, watcher=watcher)
            except (StoreError, OSError):
                # of one that was deleted meanwhile, with all its files, this is what is wrong
                _require_same(data, store.study_id(study))
                raise


def _require_same(data: StudyData, now: int) -> None:
    """Refuse a study that was deleted and made anew: neither winner nor test is of that one."""
    if now != data.id:
        raise StudyDeleted(
            f"study {data.name!r} was deleted meanwhile, and another one was made of that name",
            hint="nothing was recorded; the same command tests the winner of the new one",
        )


def _refuse_functions(data: StudyData) -> None:
    """A study of a plain function has nothing to refit."""
    if not data.kind.classifies:
        raise UsageError(
            f"study {data.name!r} calls a plain function: there is no network to train again and no test set",
            hint=f"`{data.again.report()}` shows its best point",
        )


def _test(
    store: Store,
    data: StudyData,
    winner: Winner,
    catalog: Catalog,
    options: RunOptions,
    *,
    device: str,
    hold: Hold,
    watcher: Observer,
) -> BestOutcome:
    """Train the winner again, read the test images and publish the export, in a folder that is ours meanwhile."""
    work = store.home.best_work(data.name)
    _sweep(work)
    with ExitStack() as stack:
        with store.home.writing(work):
            place = stack.enter_context(files.private_folder(work))
        # one who shares the folder with a holder that was not waited for keeps to itself
        lanes = _lanes_of(store.home, data.name, winner) if hold.alone else place / "lanes"
        interrupted = stack.enter_context(interruption.listening(watcher.say))
        watcher.say(ranked_by(data, winner))
        for note in winner.notes:
            watcher.warn(note)
        refit = Refit(
            settings=winner.settings,
            seeds=winner.seeds,
            params=winner.point.params,
            export=place / "export",
            scratch=lambda seed: store.home.make_lane_scratch(lanes / str(seed)),
            retries=options.retries,
            observer=watcher,
            interruption=interrupted,
            beat=hold,
            device=device,
        )
        # one pack of the same lanes each time: its lanes go on together, and give what they would have given
        setups = [replace(s, settled=True) for s in worker_setups(catalog, options, [device], trials=1)]
        try:
            exported, seeds, lost = refit.execute(
                starter(catalog, options, setups, settings=[winner.settings])
            )
        except Interrupted as left:
            if not left.epochs:
                shutil.rmtree(lanes, ignore_errors=True)
            return BestOutcome(
                study=data.name,
                test=None,
                fresh=False,
                changed=False,
                folder=store.home.best_dir(data.name),
                signum=interrupted.signum,
                kept=left.epochs if hold.alone else 0,
                epochs=winner.settings.epochs,
            )
        except NothingTrained:
            shutil.rmtree(lanes, ignore_errors=True)
            raise
        images = catalog.fact(winner.settings)
        finding = Finding(data, replace(winner, notes=(*winner.notes, *lost)), exported, seeds, images)
        test = publish(store, finding, refit.export, watcher, patience=options.store_patience)
        shutil.rmtree(lanes, ignore_errors=True)
        folder = store.home.best_dir(data.name)
        return BestOutcome(study=data.name, test=test, fresh=True, changed=False, folder=folder)


def _recorded(store: Store, data: StudyData, winner: Winner, watcher: Observer) -> BestOutcome:
    """Return what was found before; put its export into its place if that was cut short."""
    assert data.test is not None
    store.home.publish_best(data.name, data.test["export"])
    with suppress(StoreError):
        store.home.clean_best(data.name)  # of one that was killed right after its test
    folder, changed = store.home.best_dir(data.name), data.test["point"] != winner.id
    if changed:
        watcher.warn(
            "another point leads now, not the one that was tested; `--again` tests it, but a test "
            "repeated until its result pleases is no test"
        )
    if not folder.is_dir():
        watcher.warn(f"{folder} is gone; `--again` makes it anew, which uses the test set again")
    return BestOutcome(study=data.name, test=data.test, fresh=False, changed=changed, folder=folder)


def _lanes_of(home: Home, study: str, winner: Winner) -> Path:
    """Return the folder of a refit's lanes, known by their keys; those of others are removed."""
    keys = [trial_key(winner.settings, seed) for seed in winner.seeds]
    lanes = home.refit_dir(study, hashlib.sha256("".join(keys).encode()).hexdigest()[:16])
    for other in home.best_work(study).glob(f"{files.REFIT}*"):
        if other != lanes:
            shutil.rmtree(other, ignore_errors=True)
    return lanes


def _sweep(work: Path) -> None:
    """Remove the complete exports that a killed `best` left; `exclusive` has removed the others."""
    for left in work.iterdir():
        if left.is_dir() and not left.is_symlink() and not left.name.startswith("."):
            shutil.rmtree(left, ignore_errors=True)
