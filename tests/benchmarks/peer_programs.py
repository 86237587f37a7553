"""The peers as programs of their own: each does the whole grid in its own documented way.

Every program reads the images, trains the 16 trials and leaves one outcome a trial in its folder; whoever started
it measures its wall time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.benchmarks import peer_jax
from tests.benchmarks.peer_loops import (
    BATCHES,
    EVALUATION_BATCH,
    NORMS,
    RATES,
    SEED,
    Outcome,
    Point,
    Work,
    loader_epochs,
    network,
    points,
    resident_epochs,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = 2
GRID = {"batch": list(BATCHES), "lr": list(RATES), "norm": list(NORMS)}


def script(folder: Path, *, epochs: int, subset: int | None) -> None:
    """The published script: one trial after the other, torch's own choice of threads."""
    work = Work.load(epochs=epochs, subset=subset)
    for point in points():
        train(loader_epochs, work, point).write(folder)


def optuna_grid(folder: Path, *, epochs: int, subset: int | None) -> None:
    """Optuna's GridSampler, two processes on one SQLite storage."""
    import optuna

    storage = f"sqlite:///{folder / 'optuna.db'}"
    optuna.create_study(study_name="grid", storage=storage, direction="maximize")
    _in_processes(_optuna_worker, [(storage, folder, epochs, subset)] * PROCESSES)


def _optuna_worker(storage: str, folder: Path, epochs: int, subset: int | None) -> None:
    import optuna

    torch.set_num_threads(1)
    work = Work.load(epochs=epochs, subset=subset)

    def objective(trial: optuna.Trial) -> float:
        point = Point(**{name: trial.suggest_categorical(name, values) for name, values in GRID.items()})
        outcome = train(loader_epochs, work, point)
        outcome.write(folder)
        return outcome.val_accuracy

    # One seed for both, as its documentation recommends; without the callback a worker that is done first would
    # train the other's last point too.
    study = optuna.load_study(
        study_name="grid", storage=storage, sampler=optuna.samplers.GridSampler(GRID, seed=SEED)
    )
    enough = optuna.study.MaxTrialsCallback(len(points()), states=None)
    study.optimize(objective, callbacks=[enough])


def ray_tune(folder: Path, *, epochs: int, subset: int | None) -> None:
    """Ray Tune's grid_search, two trials of one CPU at a time, the data through its object store."""
    import ray
    from ray import tune

    ray.init(num_cpus=PROCESSES, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        work = Work.load(epochs=epochs, subset=subset)
        trainable = tune.with_resources(
            tune.with_parameters(_ray_trial, work=work, folder=folder), {"cpu": 1}
        )
        results = tune.Tuner(
            trainable,
            param_space={name: tune.grid_search(values) for name, values in GRID.items()},
            tune_config=tune.TuneConfig(
                metric="val_accuracy", mode="max", max_concurrent_trials=PROCESSES, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
        ).fit()
        if results.errors:
            raise results.errors[0]
    finally:
        ray.shutdown()


def _ray_trial(config: dict, *, work: Work, folder: Path) -> None:
    from ray import tune

    torch.set_num_threads(1)
    outcome = train(
        loader_epochs,
        work,
        Point(**config),
        report=lambda epoch: tune.report(
            {"val_accuracy": epoch.val_accuracy, "train_accuracy": epoch.train_accuracy}
        ),
    )
    outcome.write(folder)


def skorch_search(folder: Path, *, epochs: int, subset: int | None) -> None:
    """skorch's classifier in scikit-learn's GridSearchCV with two jobs, the images as one float array.

    Normalization is a step of a pipeline, so that it can be an axis; the held-out images are the one test fold,
    scored once, after the last epoch.
    """
    import numpy as np
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer
    from skorch import NeuralNetClassifier

    from tests.benchmarks.skorch_mark import Mark

    work = Work.load(epochs=epochs, subset=subset)
    used = np.concatenate([work.split.train, work.split.val])
    fold = np.repeat([-1, 0], [len(work.split.train), len(work.split.val)])
    images = work.images[used][:, None].astype(np.float32) / 255
    net = NeuralNetClassifier(
        network,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=epochs,
        train_split=None,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=EVALUATION_BATCH,
        callbacks=[("mark", Mark(str(folder)))],
        verbose=0,
    )
    standard = FunctionTransformer(_standard, kw_args={"mean": work.mean, "std": work.std})
    norms = {"none": "passthrough", "standard": standard}
    search = GridSearchCV(
        Pipeline([("norm", "passthrough"), ("net", net)]),
        {"net__batch_size": GRID["batch"], "net__lr": GRID["lr"], "norm": [norms[n] for n in NORMS]},
        scoring="accuracy",
        cv=PredefinedSplit(fold),
        n_jobs=PROCESSES,
        refit=False,
        error_score="raise",
    )
    search.fit(images, work.labels[used])
    _skorch_outcomes(folder, search.cv_results_, validated=len(work.split.val))


def _standard(images, *, mean: float, std: float):
    return (images - mean) / std


def _skorch_outcomes(folder: Path, results: dict, *, validated: int) -> None:
    """Join the callback's notes, which do not know their trial's normalization, with the search's scores."""
    notes = sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.mark.json")), key=lambda n: n["began"]
    )
    for params, score in zip(results["params"], results["mean_test_score"], strict=True):
        point = Point(
            batch=params["net__batch_size"],
            lr=params["net__lr"],
            norm="none" if params["norm"] == "passthrough" else "standard",
        )
        same = next(n for n in notes if n["batch"] == point.batch and n["lr"] == point.lr)
        notes.remove(same)
        Outcome(
            point=point,
            began=same["began"],
            ended=same["ended"],
            steps=same["steps"],
            validated=validated,
            train_accuracy=None,
            val_accuracy=float(score),
        ).write(folder)


def resident(folder: Path, *, epochs: int, subset: int | None) -> None:
    """The resident plain loop, half of the trials in each of two processes, longest first."""
    _in_processes(_resident_worker, [(i, folder, epochs, subset) for i in range(PROCESSES)])


def _resident_worker(index: int, folder: Path, epochs: int, subset: int | None) -> None:
    torch.set_num_threads(1)
    work = Work.load(epochs=epochs, subset=subset)
    for point in points()[index::PROCESSES]:
        train(resident_epochs, work, point).write(folder)


def jax_vmap(folder: Path, *, epochs: int, subset: int | None) -> None:
    """JAX, the trials of a batch size vmapped: the smallest in one process, the others in the other."""
    first, *others = BATCHES
    _in_processes(peer_jax.work_on, [(sizes, folder, epochs, subset) for sizes in ((first,), tuple(others))])


def _in_processes(work: Callable[..., None], arguments: list[tuple]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=words) for words in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process failed, see above")


PROGRAMS = {
    "script": script,
    "optuna": optuna_grid,
    "ray": ray_tune,
    "skorch": skorch_search,
    "resident": resident,
    "jax": jax_vmap,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=sorted(PROGRAMS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--subset", type=int)
    words = parser.parse_args()
    PROGRAMS[words.peer](words.folder, epochs=words.epochs, subset=words.subset)
