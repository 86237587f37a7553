"""`run` from Python: a grid's search, the rest of one that was interrupted, or more seeds for a study's best points.

Between the caller, whose arguments `keywords` and `given` read, and `service.run`, which does what the command line's
`run` and `resume` do.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from gridsearch import web_browser
from gridsearch.api.arguments import with_nearest_name
from gridsearch.api.given import Objects
from gridsearch.api.keywords import (
    CHANGING,
    as_words,
    flag,
    places,
    read,
    read_word,
    run_options,
    settings_of,
    spec_of,
    study_name,
    with_axes,
)
from gridsearch.api.result import StudyResult
from gridsearch.api.watching import Watcher
from gridsearch.errors import PluginError, UsageError
from gridsearch.importing import imported_now
from gridsearch.records.study_kinds import kind_of
from gridsearch.service.prepare.option_words import count
from gridsearch.service.prepare.options import require_report
from gridsearch.service.prepare.replicates import TOP, MoreSeeds

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from gridsearch.records import Value
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.run.running import RunOutcome
    from gridsearch.spec import Grid, StudySpec


@with_nearest_name
def run(  # noqa: PLR0913 - each option of the command line by its name, for `help` and editors
    grid: Grid | Mapping[str, Any] | Sequence[str] | StudySpec | str | os.PathLike[str] | None = None,
    *,
    exclude: str | Sequence[str] | None = None,
    when: str | Sequence[str] | None = None,
    study: str | None = None,
    dataset: Any = None,
    model: str | Callable[..., Any] | Sequence[Any] | None = None,
    code: str | Callable[..., Any] | Sequence[Any] | None = None,
    objective: str | Callable[..., Any] | None = None,
    metric: str | None = None,
    direction: str | None = None,
    epochs: int | None = None,
    seeds: int | Sequence[int] | None = None,
    val: float | None = None,
    folds: int | None = None,
    group: str | None = None,
    subset: int | None = None,
    version: str | None = None,
    sample: int | None = None,
    order: str | None = None,
    ignore: str | Sequence[str] | None = None,
    recipe: Mapping[str, Value] | None = None,
    more_seeds: int | None = None,
    top: int | None = None,
    home: str | os.PathLike[str] | None = None,
    store: str | None = None,
    device: Any = None,
    workers: int | str | None = None,
    lanes: int | str | None = None,
    executor: str | None = None,
    slurm: Mapping[str, Any] | str | Sequence[str] | None = None,
    prune: str | None = None,
    budget: float | str | timedelta | None = None,
    trial_limit: float | str | timedelta | None = None,
    retries: int | None = None,
    checkpoint: float | str | timedelta | None = None,
    store_patience: float | str | timedelta | None = None,
    lease: float | str | timedelta | None = None,
    keep_going: bool = False,
    notify: str | Sequence[str] | None = None,
    report: bool = True,
    open: bool = False,  # noqa: A002 - the option's name
    quiet: bool = False,
    **settings: Any,
) -> StudyResult:
    """Train what is missing of a grid, and write the report; with only `study`, finish what that study lacks.

    Each argument means the same as the command-line option of its name and accepts the same values, also as text.
    None stands for an option that is not given.

    Args:
        grid: a mapping of axes to values ({"lr": [.01, .001], "batch": "10..50:10"}), a `Grid`, texts as on the command
            line ("lr=.01,.001 batch=32", or a list of these), a `StudySpec`, or the path of a study file.
        exclude: points to leave out ("lr=.01 batch=10"), one text or several.
        when: conditions under which an axis exists ("momentum: optimizer=sgd"), one text or several.
        study: the study's name; default: the dataset's or the function's.
        dataset: a name, "folder:PATH", "csv:FILE", "npz:FILE", "hf:NAME", "file.py:Name" or "module:Name"; a class or
            function that returns the images; the images themselves ({"train_images": ..., "train_labels": ...}); or a
            torch `Dataset`.  Default: "fmnist".
        model: a name, "file.py:Name" or "module:Name", or the class or function itself; default: "lenet".  To finish
            a stored study with several models of your own, a list of them.
        code: your own optimizers and augmentations that a stored study needs: "file.py:Name", or the class or function
            itself, one or several.
        objective: a plain function f(params, seed) to search in place of images and networks: "file.py:name",
            "module:name", or the function itself; `grid` and `recipe` then hold its params.
        metric: the metric that ranks and prunes; default: "accuracy", for a function "value".  For images also
            "balanced_accuracy", "macro_f1", "loss", "top3", "auc", "ece" or "recall:CLASS"; for a function any that it
            returns.
        direction: for a function's metric: "maximize" (default) or "minimize".
        epochs: epochs of each trial; default: 10.
        seeds: seeds of each point: a number N for the seeds 0 to N-1, or a list of them; default: 1.
        val: fraction of the training images held out for the ranking; default: 1/6.  0 ranks by train accuracy.
        folds: stratified cross-validation in place of `val`: this many trials for each seed of a point, each with a
            different part held out; a point ranks by the mean over folds and seeds.
        group: what the dataset's images are grouped by, such as a column or "subfolder"; no split divides a group.
        subset: train on a stratified subset of this many images.
        version: version of your own code; a new one makes new trials.  For code that cannot be identified (it reads
            files, or uses objects that cannot be inspected).
        sample: train only this many of the grid's points, spread evenly over it; a larger number later adds to them.
        order: which points train first: "given" (default; the longest packs, so that the run ends soonest), "spread"
            (evenly over the grid) or "cheap-first".
        ignore: findings that this study's reports leave out, such as "GS101" or "edge-of-axis", one or several.
        recipe: settings that are the same for all points, by name.
        more_seeds: seeds to add to the best points of the stored `study`; takes no grid.
        top: how many points get `more_seeds`; default: 2.
        home: folder of the store and of all files of the studies; default: $GRIDSEARCH_HOME, or "runs".
        store: the database's URL; default: $GRIDSEARCH_STORE, or gridsearch.db in home.
        device: "auto" (default), "cpu", "cuda", "cuda:N", "mps", or a `torch.device`.
        workers: worker processes; default: one per core or GPU.  With executor="slurm": allocations; default: 4.
        lanes: most trials in one pack (trials that train together as one program); 1 trains each alone.  Default:
            measured.
        executor: "local" trains in worker processes, which get copies of what only this session defines.  "inline"
            trains in this process, one trial after the other.  "ray" and "slurm" train on a cluster, with copies as
            for "local".  Default: "local"; "inline", with a warning, for a function that changes a list or an object
            of this session or cannot be copied.
        slurm: options of sbatch for each allocation, {"partition": "gpu", "time": "4:00:00"}.
        prune: "none" (default), "median", "asha" or "hyperband": end poor trials early.
        budget: end the run after this time: seconds, "1h30m", or a `timedelta`.  No more trials start, and running
            ones end at the end of their epoch, or after 15 seconds; the next run continues them.
        trial_limit: a trial that trains for longer fails (reason: limit), and the others continue; same forms as
            `budget`.
        retries: attempts after a worker died; default: 2.
        checkpoint: save each trial at the end of an epoch, at most this often: seconds, "30s", a `timedelta`,
            "every-epoch" or "off"; an interrupted trial continues from there.  Default: 60 seconds.
        store_patience: keep training for this long while the store is locked or unavailable; results wait on the
            disk.  Same forms as `budget`; default: 10 minutes.
        lease: a runner that is silent for this long loses its trials to others.  Same forms as `budget`; default: 1
            minute.
        keep_going: continue even if the first trials all fail with the same error; otherwise the run stops.
        notify: Apprise URLs, one or several, that get a message when the run has ended, failed or was interrupted.
            Default: those in $GRIDSEARCH_NOTIFY.
        report: whether to write the report at the end.
        open: open the report in the browser at the end, as `StudyResult.show` does.
        quiet: no progress and no messages, only warnings.
        **settings: hyperparameters by name, as in run(..., optimizer="sgd", lr=[.1, .01]); each is an axis of the
            grid, with one value or several.  `optimizer` also accepts a class of optimizers, and `augment` a function
            that changes a batch of images.

    Returns:
        The study's results.  Points that these arguments describe rank first; points of earlier versions of the code,
        of other images or of other settings follow, ranked separately (`ranking.incomparable`).

    Raises:
        GridsearchError: as on the command line; `exit_code` says which kind.
        KeyboardInterrupt: the run was interrupted; finished trials are kept, the others wait for the next run.

    Warns:
        GridsearchWarning: about settings with a surprising effect, and about failed trials.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("settings", "report", "open", "keep_going", "quiet"):
        given.pop(name, None)
    given.pop("grid", None)
    grid = as_words(grid)
    outside_of_imports()
    made, axes = settings_of(recipe, settings, known=_ARGUMENTS, kind=kind_of({"objective": objective}))
    watcher = Watcher(quiet=flag("quiet", quiet))
    options = {**given, "report": report, "keep_going": keep_going}
    require_report(open_it=flag("open", open), report=flag("report", report, default=True))
    if grid is None and study is not None and not (set(given) & CHANGING or settings):
        outcome = _resume(given, options, watcher)
    else:
        objects = Objects()
        outcome = _search(with_axes(grid, objects.grid(axes)), given, made, options, watcher, objects)
    if outcome.signum is not None:
        raise KeyboardInterrupt
    _tell_failures(outcome, watcher)
    page = None if outcome.report is None else outcome.report.page
    if open and page is not None and (problem := web_browser.open_page(page)):
        watcher.warn(problem)
    watcher.finish()
    counts = outcome.new, outcome.reused, outcome.failed, outcome.open
    return StudyResult(outcome.data, outcome.own or outcome.ranking, page, *counts, places(given))


_ARGUMENTS = tuple(n for n, p in inspect.signature(run).parameters.items() if p.kind is not p.VAR_KEYWORD)


def _search(
    grid: Any,
    given: Mapping[str, Any],
    recipe: Mapping[str, Any],
    options: Mapping[str, Any],
    watcher: Watcher,
    objects: Objects,
) -> RunOutcome:
    """Run what the arguments describe."""
    from gridsearch.service.run import running

    if "more_seeds" in given or "top" in given:
        _more_seeds(given)
        raise UsageError("more_seeds extends a study that exists: give `study`, and nothing to search")
    if isinstance(several := given.get("model"), list | tuple):
        raise UsageError(
            f"model takes one value, not a {type(several).__name__}; several go into the grid",
            hint='grid={"model": [...]}',
        )
    if grid is None and not recipe and not set(given) & {"exclude", "when"}:
        raise UsageError(
            "nothing to search: no grid and no study file",
            hint='try gridsearch.run(grid={"lr": [.01, .001]})',
        )
    grid, named = objects.grid(grid), objects.named(given)
    if "code" in named:
        raise UsageError(
            "code names code for a study that exists", hint="here optimizer=... and augment=... do"
        )
    spec = spec_of(grid, named, objects.recipe(recipe))
    how = _how(options, objects, watcher)
    return running.run(
        spec,
        how,
        observer=watcher,
        objects=objects.models,
        dataset=objects.dataset,
        objective=objects.objective,
    )


def _resume(given: Mapping[str, Any], options: Mapping[str, Any], watcher: Watcher) -> RunOutcome:
    """Finish a stored study, or give its best points more seeds."""
    from gridsearch.service.run import running

    objects = Objects()
    named = objects.named(given)
    how = _how(options, objects, watcher)
    return running.resume(
        study_name(given["study"]),
        how,
        observer=watcher,
        dataset=objects.dataset or named.get("dataset"),
        models=[*listed(named.get("model")), *listed(named.get("code"))],
        objective=objects.objective or named.get("objective"),
        objects=objects.models,
        more=_more_seeds(given),
    )


def listed(models: Any) -> list[Any]:
    """Return one model or several as a list; None are none."""
    return [] if models is None else list(models) if isinstance(models, list | tuple) else [models]


def _how(options: Mapping[str, Any], objects: Objects, watcher: Watcher) -> RunOptions:
    """Return how to run: where it is not said, the objects decide in which processes."""
    asked = read("executor", options["executor"]) if "executor" in options else None
    return run_options({**options, "executor": objects.executor(asked, watcher.warn)})


def outside_of_imports() -> None:
    """Refuse a run that a worker, or the command line, has begun by importing the module that calls for it.

    Raises:
        PluginError: it is being imported for one of its names.
    """
    if (name := imported_now()) is not None:
        raise PluginError(
            f"{name}: its module calls gridsearch.run while it is imported",
            hint='put the call below `if __name__ == "__main__":`',
        )


def _more_seeds(given: Mapping[str, Any]) -> MoreSeeds | None:
    if "more_seeds" not in given and "top" not in given:
        return None
    if "more_seeds" not in given:
        raise UsageError("top has no effect without more_seeds", hint="give more_seeds too")
    top = read_word("top", given["top"], count) if "top" in given else TOP
    return MoreSeeds(read_word("more_seeds", given["more_seeds"], count), top)


def _tell_failures(outcome: RunOutcome, watcher: Watcher) -> None:
    """Warn of trials that failed, as the command line does, and of a study that has nothing but diverged ones."""
    again = f"run(study={outcome.study!r})"
    if outcome.open:
        left = "1 trial is" if outcome.open == 1 else f"{outcome.open} trials are"
        watcher.warn(f"{left} left waiting: {again} continues")
    diverged = [t for t in outcome.data.trials if t.state == "diverged"]
    if diverged and len(diverged) == len(outcome.data.trials):
        some = f"all {len(diverged)} trials" if len(diverged) > 1 else "the only trial"
        watcher.warn(
            f"{some} of study {outcome.study!r} diverged; trial {diverged[0].number}: {diverged[0].error}"
        )
    if not outcome.failed:
        return
    failed = [t for t in outcome.data.trials if t.state == "failed"]
    first = f"; trial {failed[0].number}: {failed[0].error}" if failed else ""
    some = f"{outcome.failed} trial{'s' * (outcome.failed > 1)}"
    if outcome.failed == outcome.new + outcome.reused:
        some = f"all {some}" if outcome.failed > 1 else "the only trial"
    watcher.warn(f"{some} of study {outcome.study!r} failed{first}")
