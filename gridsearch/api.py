"""The Python door, beside the command line: `run`, `load`, `compare`, `best`, `predict`; results as pandas frames.

import gridsearch as gs

result = gs.run(grid={"lr": [0.01, 0.001], "batch": "10..50:10"}, dataset="digits", epochs=5)
result.points.head()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from gridsearch import plugins
from gridsearch.errors import PluginError, UsageError
from gridsearch.importing import imported_now
from gridsearch.result import StudyResult
from gridsearch.service.options import Places, RunOptions
from gridsearch.service.replicates import TOP, MoreSeeds
from gridsearch.spec import Grid, StudySpec, build

if TYPE_CHECKING:
    from gridsearch.records import Value
    from gridsearch.service.best import BestOutcome
    from gridsearch.service.comparisons import Compared
    from gridsearch.service.exported import Prediction


class SearchArguments(TypedDict, total=False):
    """What to search; each means what the option of that name means on the command line.

    Attributes:
        exclude: "lr=.01 batch=10", one text or several.
        when: "momentum: optimizer=sgd", one text or several.
        model: a name, "file.py:Name", "module:Name", or the class or function itself; a list of them to finish a
            stored study that has several of your own.
        dataset: likewise, or "folder:PATH".
        objective: a plain function instead of images and networks: "file.py:name", "module:name", or the function
            itself; `grid` and `recipe` then hold its params.
        metric: which of its metrics ranks.
        direction: "maximize" or "minimize" it.
        version: of code of your own: it stands for what of it has no address (files that it reads, objects that
            nobody can look into), and another version is computed again.
        recipe: settings by name, as with `--set`.
    """

    exclude: str | Sequence[str]
    when: str | Sequence[str]
    study: str
    dataset: str | Callable[..., Any]
    model: str | Callable[..., Any] | Sequence[str]
    objective: str | Callable[..., Any]
    metric: str
    direction: str
    epochs: int
    seeds: int | Sequence[int]
    val: float
    subset: int
    version: str
    recipe: Mapping[str, Value]


class RunArguments(SearchArguments, total=False):
    """How to run it; each means what the option of that name means on the command line.

    Attributes:
        more_seeds: replicates to add to the best points of the stored `study`; with nothing to search beside it.
        top: for how many points.
        budget: seconds.
        quiet: no progress on standard error.
    """

    more_seeds: int
    top: int
    home: str | Path
    store: str
    device: str
    workers: int | None
    lanes: int | None
    executor: str
    prune: str
    budget: float | None
    retries: int
    keep_going: bool
    report: bool
    quiet: bool


def run(
    grid: Grid | Mapping[str, Any] | Sequence[str] | StudySpec | str | Path | None = None,
    **arguments: Unpack[RunArguments],
) -> StudyResult:
    """Expand a grid, train what is missing, report; with only `study`, finish what that study lacks.

    Args:
        grid: a Grid, a mapping of axes to values, words of the command line's grammar, a StudySpec, or the path
            of a study file.
        **arguments: see `SearchArguments` and `RunArguments`.

    Raises:
        GridsearchError: as on the command line; `exit_code` says which kind.
        KeyboardInterrupt: the run was interrupted; what had ended is kept, the rest waits.
    """
    from gridsearch.cli import display
    from gridsearch.service import running

    _outside_of_imports()
    options, objects = _run_options(arguments), _Objects()
    observer = display.observer(quiet=arguments.get("quiet", False), no_color=False)
    stored = grid is None and "study" in arguments and not set(arguments) & _CHANGING
    more = _more_seeds(arguments, stored=stored)
    if stored:
        dataset, model, objective = (arguments.get(name) for name in ("dataset", "model", "objective"))
        if callable(dataset) or callable(model) or callable(objective):
            raise UsageError(
                "a stored study is finished with its plug-ins named as file.py:Name or module:Name"
            )
        named: dict[str, Any] = {
            "dataset": dataset,
            "models": list(model) if isinstance(model, list | tuple) else [model] if model else [],
            "objective": objective,
        }
        outcome = running.resume(arguments["study"], options, observer=observer, **named, more=more)
    else:
        spec = _spec(grid, arguments, objects)
        given: dict[str, Any] = {"dataset": objects.dataset, "objective": objects.objective}
        outcome = running.run(spec, options, observer=observer, objects=objects.models, **given)
    if outcome.signum is not None:
        raise KeyboardInterrupt
    return StudyResult(
        outcome.data,
        outcome.ranking,
        None if outcome.report is None else outcome.report.page,
        outcome.new,
        outcome.reused,
        outcome.failed,
        outcome.open,
        options.places,
    )


def _outside_of_imports() -> None:
    """Refuse a run that a worker, or the command line, has begun by importing the module that calls for it.

    Raises:
        PluginError: it is being imported for one of its names.
    """
    if (name := imported_now()) is not None:
        raise PluginError(
            f"{name}: its module calls gridsearch.run while it is imported",
            hint='put the call below `if __name__ == "__main__":`',
        )


def _more_seeds(arguments: RunArguments, *, stored: bool) -> MoreSeeds | None:
    seeds, top = arguments.get("more_seeds"), arguments.get("top")
    if seeds is None and top is None:
        return None
    if seeds is None:
        raise UsageError("top says for how many points, and not what", hint="give more_seeds too")
    if not stored:
        raise UsageError("more_seeds adds to a study that is there: give `study`, and nothing to search")
    return MoreSeeds(seeds, TOP if top is None else top)


_CHANGING = {
    "exclude",
    "when",
    "epochs",
    "seeds",
    "val",
    "subset",
    "recipe",
    "metric",
    "direction",
    "version",
}
_SPEC_OPTIONS = ("study", "epochs", "val", "subset", "metric", "direction", "version")


def load(study: str, *, store: str | None = None, home: str | Path | None = None) -> StudyResult:
    """Read a study from the store.

    Args:
        study: its name.
        store: the database's URL; default as on the command line.
        home: where the store lies; default as on the command line.

    Raises:
        StudyNotFound: there is no such study.
        StoreError: there is no store, or it cannot be read.
    """
    from gridsearch.service import studies
    from gridsearch.service.reports import rank_study

    places = Places.find(home, store)
    with studies.existing(places) as opened:
        data = opened.study_data(study)
        ranking = rank_study(opened, data)
    page = places.home / study / "report" / "index.html"
    return StudyResult(data, ranking, page if page.exists() else None, places=places)


def compare(
    *studies: str,
    where: Mapping[str, Value] | None = None,
    store: str | None = None,
    home: str | Path | None = None,
) -> Compared:
    """Compare studies of a store, and write the comparison's page.

    Args:
        *studies: the names of two to five.
        where: only the trials with these values, in each study.
        store: the database's URL; default as on the command line.
        home: where the store lies; default as on the command line.

    Returns:
        `page` (its path), `comparison` (its winners, differences and shared points; `to_json()`), `warnings`.

    Raises:
        StudyNotFound: there is no study of that name.
        GridsearchError: as on the command line; `exit_code` says which kind.
    """
    from gridsearch.service import studies as service
    from gridsearch.service.comparisons import compare_studies

    with service.existing(Places.find(home, store)) as opened:
        return compare_studies(opened, studies, where=where)


class BestArguments(TypedDict, total=False):
    """How to refit a winner; each means what the option of that name means on the command line.

    Attributes:
        where: only the trials with these values.
        again: read the test set once more.
        model: a user's own model again: "file.py:Name", "module:Name", or the class or function itself.
        dataset: likewise.
        quiet: no progress on standard error.
    """

    home: str | Path
    store: str
    where: Mapping[str, Value]
    again: bool
    model: str | Callable[..., Any]
    dataset: str | Callable[..., Any]
    device: str
    executor: str
    quiet: bool


def best(study: str, **arguments: Unpack[BestArguments]) -> BestOutcome:
    """Refit a study's winner on train and validation, read the test set once, export the model.

    Args:
        study: its name.
        **arguments: see `BestArguments`.

    Raises:
        GridsearchError: as on the command line; `exit_code` says which kind.
        KeyboardInterrupt: it was interrupted; nothing was kept, and the test set was not read.
    """
    from gridsearch.cli import display
    from gridsearch.service import best as service

    objects, model = _Objects(), arguments.get("model")
    name = None if model is None else objects.model(model)
    found = service.best(
        study,
        RunOptions(
            places=Places.find(arguments.get("home"), arguments.get("store")),
            device=arguments.get("device", "auto"),
            executor=arguments.get("executor", "local"),
        ),
        where=arguments.get("where"),
        again=arguments.get("again", False),
        observer=display.observer(quiet=arguments.get("quiet", False), no_color=False),
        dataset=arguments.get("dataset"),
        models=[] if name is None else [name],
        objects=objects.models,
    )
    if found.signum is not None:
        raise KeyboardInterrupt
    return found


def predict(folder: str | Path, images: str | Path | Sequence[str | Path]) -> list[Prediction]:
    """Return what an exported model says of image files, in the order given.

    Args:
        folder: what `best` exported.
        images: one file or several, of any size.

    Raises:
        UsageError: there is no such folder.
        ArtifactError: it is no export, or a file in it is missing or altered.
        DataError: an image cannot be used.
    """
    from gridsearch.service.exported import ExportedModel, Refused, unusable

    found = ExportedModel.load(folder).predict([images] if isinstance(images, str | Path) else list(images))
    good = [each for each in found if not isinstance(each, Refused)]
    if len(good) < len(found):
        raise unusable([each for each in found if isinstance(each, Refused)])
    return good


class _Objects:
    """Classes and functions given instead of names, under the names that the spec uses for them."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.dataset: Any = None
        self.objective: Any = None

    def name(self, target: Any) -> str:
        return plugins.of_object(target).name

    def model(self, target: Any) -> Any:
        """Return a model's name; anything but a class or function is returned as it is."""
        if not callable(target):
            return target
        name = self.name(target)
        self.models[name] = target
        return name


def _run_options(arguments: RunArguments) -> RunOptions:
    named = ("device", "workers", "lanes", "executor", "prune", "budget", "retries", "keep_going", "report")
    given = {name: arguments[name] for name in named if name in arguments}  # type: ignore[literal-required]
    places = Places.find(arguments.get("home"), arguments.get("store"))
    return RunOptions(places=places, command="gridsearch.run(...) from Python", **given)


def _spec(grid: Any, arguments: RunArguments, objects: _Objects) -> StudySpec:
    if isinstance(grid, StudySpec):
        given = sorted(set(arguments) & set(SearchArguments.__annotations__))
        if given:
            raise UsageError(
                f"{', '.join(given)}: given beside a StudySpec", hint="put it into the StudySpec"
            )
        return grid
    options = _spec_options(arguments, objects)
    rules: dict[str, Any] = {
        "exclude": _several(arguments.get("exclude", ())),
        "when": _several(arguments.get("when", ())),
    }
    recipe = dict(arguments.get("recipe", {}))
    if isinstance(grid, str | Path):
        if recipe:
            raise UsageError("recipe: given beside a study file", hint="put it into the file's [recipe]")
        return build(file=grid, options=options, **rules)
    if isinstance(grid, Sequence) and "objective" in options:
        words = [f"{name}={value}" for name, value in recipe.items()]
        return build(words=grid, options=options, settings=words, **rules)
    if isinstance(grid, Sequence):
        return build(words=grid, options=options | recipe, **rules)
    if isinstance(grid, Grid) and any(rules.values()):
        raise UsageError("exclude, when: given beside a Grid", hint="give them to Grid(...)")
    epochs = {"epochs": options.pop("epochs")} if "epochs" in options else {}
    made = (
        grid if isinstance(grid, Grid) else _grid(grid or {}, rules, objects, params="objective" in options)
    )
    return StudySpec(**options, grid=made, recipe=recipe | epochs)


def _spec_options(arguments: RunArguments, objects: _Objects) -> dict[str, Any]:
    """Return the options of a spec, objects by their names."""
    options: dict[str, Any] = {
        name: arguments[name]  # type: ignore[literal-required]
        for name in _SPEC_OPTIONS
        if arguments.get(name) is not None
    }
    if (seeds := arguments.get("seeds")) is not None:
        options["seeds"] = seeds if isinstance(seeds, int) else tuple(seeds)
    if (model := arguments.get("model")) is not None:
        options["model"] = objects.model(model)
    if callable(dataset := arguments.get("dataset")):
        objects.dataset = dataset
        options["dataset"] = objects.name(dataset)
    elif dataset is not None:
        options["dataset"] = dataset
    if callable(objective := arguments.get("objective")):
        objects.objective = objective
        options["objective"] = objects.name(objective)
    elif objective is not None:
        options["objective"] = objective
    if "objective" in options and "epochs" in options:
        raise UsageError(
            "epochs: a plain function has its own params", hint='recipe={"epochs": ...} sets one'
        )
    return options


def _grid(axes: Mapping[str, Any], rules: Mapping[str, Any], objects: _Objects, *, params: bool) -> Grid:
    if params:
        return Grid.of_params(axes, **rules)
    return Grid({name: _values(name, values, objects) for name, values in axes.items()}, **rules)


def _several(rules: str | Sequence[str]) -> Sequence[str]:
    return [rules] if isinstance(rules, str) else list(rules)


def _values(name: str, values: Any, objects: _Objects) -> Any:
    if name != "model" or isinstance(values, str):
        return values
    return [objects.model(value) for value in values]
