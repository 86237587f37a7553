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
    """Expand a grid, train what is missing, report; with only `study`, finish what that study lacks.

    Each argument means what the option of its name means on the command line, and takes what that takes, as text too;
    None is one that was not given.

    Args:
        grid: a mapping of axes to values ({"lr": [.01, .001], "batch": "10..50:10"}), a `Grid`, words of the command
            line's grammar, a `StudySpec`, or the path of a study file.
        exclude: points to leave out ("lr=.01 batch=10"), one text or several.
        when: conditions on which an axis exists ("momentum: optimizer=sgd"), one text or several.
        study: the study's name; default: the dataset's or the function's.
        dataset: a name, "folder:PATH", "csv:FILE", "npz:FILE", "hf:NAME", "file.py:Name" or "module:Name"; a class or
            function that returns the images;
            the images themselves ({"train_images": ..., "train_labels": ...}); or a torch `Dataset`.
            Default: "fmnist".
        model: a name, "file.py:Name" or "module:Name", or the class or function itself; default: "lenet".  A list of
            them finishes a stored study that has several of your own.
        code: optimizers and augmentations of your own that a stored study needs again: "file.py:Name", or the class or
            function itself, one or several.
        objective: a plain function instead of images and networks, f(params, seed): "file.py:name", "module:name", or
            the function itself; `grid` and `recipe` then hold its params.
        metric: which metric ranks and prunes; default: "accuracy", of a function "value" among its own.  Of images also
            "balanced_accuracy", "macro_f1", "loss", "top3", "auc", "ece" and "recall:CLASS".
        direction: of a function's metric: "maximize" (default) or "minimize" it.
        epochs: of each trial; default: 10.
        seeds: how many replicates of each point (N stands for seeds 0 to N-1), or which; default: 1.
        val: fraction of train held out for the ranking; default: 1/6.  0 ranks by train accuracy.
        folds: in place of `val`: so many trials for each seed of a point, each with another part held out (stratified
            cross-validation); a point ranks by the mean over folds and seeds.
        group: what the dataset groups its images by, such as a column or "subfolder": no split divides a group.
        subset: train on so many images only, stratified.
        version: of code of your own: it stands for what of it has no address (files that it reads, objects that
            nobody can look into), and another version is computed again.
        sample: only so many of the grid's points, spread evenly over it; a larger number later adds to them.
        order: which points train first: "given" (default; the longest packs first, so that the run ends soonest),
            "spread" (evenly over the grid), or "cheap-first".
        ignore: findings that this study's reports leave out, "GS101" or "edge-of-axis", one or several.
        recipe: settings that are the same for all points, by name.
        more_seeds: replicates to add to the best points of the stored `study`, with nothing to search beside it.
        top: for how many points; default: 2.
        home: where the store and all files of the studies lie; default: $GRIDSEARCH_HOME, or "runs".
        store: the database's URL; default: $GRIDSEARCH_STORE, or gridsearch.db in home.
        device: "auto" (default), "cpu", "cuda", "cuda:N", "mps", or a `torch.device`.
        workers: worker processes; default: one per core or GPU.  With executor="slurm": allocations; default: 4.
        lanes: trials in one pack at most; 1 trains each alone.  Default: measured.
        executor: "local" trains in worker processes, which get copies of what this session alone defines; "inline" in
            this process, one trial after the other, sharing its memory and threads.  Default: "local", but "inline"
            (with a warning) for a function that fills a list or an object of this session or cannot be copied.  "ray"
            and "slurm" train on a cluster, with copies as for "local".
        slurm: options of sbatch for each allocation, {"partition": "gpu", "time": "4:00:00"}.
        prune: "none" (default), "median", "asha" or "hyperband" ends poor trials early.
        budget: end after that time: seconds, "1h30m", or a `timedelta`.  No more trials start, and those that train
            end at their next epoch's end, or after 15 seconds; they wait, and go on with the next run.
        trial_limit: a trial that trains for longer fails (reason: limit), and the others go on; as for `budget`.
        retries: attempts after a worker died; default: 2.
        checkpoint: save each trial at an epoch's end, at most this often: seconds, "30s", a `timedelta`, "every-epoch",
            or "off"; an interrupted trial goes on from there.  Default: 60 seconds.
        store_patience: go on for that long while the store is locked or away, as for `budget`; results wait on the
            disk.  Default: 10 minutes.
        lease: a runner silent for this long loses its trials to others; as for `budget`.  Default:
            1 minute.
        keep_going: go on where the first trials all fail with the same error; else a run of such trials stops.
        notify: Apprise's URLs, one or several, that are told when the run has ended, failed or was interrupted.
            Default: those of $GRIDSEARCH_NOTIFY.
        report: whether to write the report at the end.
        open: open the report in the browser at the end, as `StudyResult.show` does whenever it is called.
        quiet: no progress and no messages; warnings all the same.
        **settings: settings of networks by their names, as in run(..., optimizer="sgd", lr=[.1, .01]); each is an
            axis of the grid, of one value or several.  `optimizer` also takes a class of optimizers, and `augment` a
            function that changes a batch of images.

    Returns:
        The study: what these words describe ranks first; points of earlier versions of the code, of other images or of
        other settings follow, ranked among themselves (`ranking.incomparable`).

    Raises:
        GridsearchError: as on the command line; `exit_code` says which kind.
        KeyboardInterrupt: the run was interrupted; what had ended is kept, the rest waits.

    Warns:
        GridsearchWarning: what may not be as you think; trials that failed.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("settings", "report", "open", "keep_going", "quiet"):
        given.pop(name, None)
    given.pop("grid", None)
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
    """Warn of trials without a result, as the command line does."""
    again = f"run(study={outcome.study!r})"
    if outcome.open:
        left = "1 trial is" if outcome.open == 1 else f"{outcome.open} trials are"
        watcher.warn(f"{left} left waiting: {again} continues")
    if not outcome.failed:
        return
    failed = [t for t in outcome.data.trials if t.state == "failed"]
    first = f"; trial {failed[0].number}: {failed[0].error}" if failed else ""
    some = f"{outcome.failed} trial{'s' * (outcome.failed > 1)}"
    if outcome.failed == outcome.new + outcome.reused:
        some = f"all {some}" if outcome.failed > 1 else "the only trial"
    watcher.warn(f"{some} of study {outcome.study!r} failed{first}")
