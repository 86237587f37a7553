"""The study as a value: what is gridded, what is fixed, on which data, with which seeds.

Made from the command line and a study file (`study_builder`), or from Python; the store, the planner and the report go
by it from then on.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gridsearch.errors import SpecError
from gridsearch.records import DATA_PREFIX, ImageSettings
from gridsearch.records.image_metrics import image_metric
from gridsearch.records.image_settings import GROUP
from gridsearch.records.results import SAMPLED_FROM
from gridsearch.records.study_kinds import StudyKind, kind_of
from gridsearch.spec.axes import AXES, find_axis
from gridsearch.spec.collector import InvalidValue
from gridsearch.spec.grammar import write_scalar
from gridsearch.spec.grid import Grid
from gridsearch.spec.recipe import Params, Recipe
from gridsearch.spec.study_names import default_name
from gridsearch.spec.study_options import (
    ORDERS,
    check_metric,
    less_is_better,
    misplaced,
    read_option,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.records import Value

_T = TypeVar("_T", Grid, Params)

_DEFAULTS = ImageSettings()


class _Several(InvalidValue):
    """Several problems of one field, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _option(name: str) -> BeforeValidator:
    # None means "not given" for these, as it does on the command line.
    return BeforeValidator(
        lambda value: (
            None
            if value is None
            and name in ("study", "subset", "folds", "group", "objective", "version", "sample")
            else read_option(name, value)
        )
    )


def _converted(
    kinds: type[Any] | tuple[type[Any], ...], convert: Callable[[Mapping[str, Any]], Any]
) -> BeforeValidator:
    first = kinds[0] if isinstance(kinds, tuple) else kinds

    def validate(value: object) -> Any:
        if isinstance(value, kinds):
            return value
        if not isinstance(value, Mapping):
            raise InvalidValue(f"must be a {first.__name__} or a mapping, not {type(value).__name__}")
        try:
            return convert(value)
        except SpecError as error:
            raise _Several(error.problems) from None

    return BeforeValidator(validate)


def _for_function(value: Any, kind: type[_T], convert: Callable[[Mapping[str, Any]], _T]) -> Any:
    """Return a grid or a recipe as one of a function's params; anything but a mapping is left to the validators."""
    return convert(value) if isinstance(value, Mapping) and not isinstance(value, kind) else value


def _of_another_kind(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a spec belongs to images where there is a function, and the other way round."""
    for name in values:
        if (why := misplaced(name, values)) is not None:
            yield why
    grid = values.get("grid")
    if isinstance(grid, Grid) and grid.axes and grid.parts.free != kind_of(values).free_axes:
        yield (
            "grid: its axes are params of a function, and there is no objective"
            if grid.parts.free
            else "grid: of an objective it is a mapping of axes to values, or Grid.of_params(...)"
        )


class StudySpec(BaseModel):
    """A study: immutable, checked, with all its problems reported at once.

        StudySpec(dataset="digits", grid=Grid(lr=[.01, .001]), recipe={"epochs": 5}, seeds=3)

    Attributes:
        study: its name, or None for one after the dataset (see `name`).
        dataset: a name, "folder:PATH", or a plug-in.
        objective: a plain function instead of images and networks ("file.py:function"); the grid's axes and the
            recipe's keys are then its params.
        metric: which metric ranks: of a function one of its own, with `direction`; of images accuracy, or another
            of `records.image_metrics`.
        model: a name or a plug-in; a `model` axis of the grid wins over it.
        seeds: how many replicates (N stands for seeds 0 to N-1), or which; see `seed_list`.
        val: fraction of the training images held out for validation.
        subset: train on that many images of the training split.
        folds: hold out each of so many parts in turn, in the place of `val`: a trial for each fold of each seed.
        group: what the dataset's images are grouped by (a column, "subfolder", "groups"): no split divides a group.
        version: of the user's own code: it stands for what of that code has no address (files that it reads, objects
            that nobody can look into); another version is another point.
        sample: how many of the grid's points, spread evenly over it; None for all.
        order: in which order they train: "given", "spread" or "cheap-first".
        ignore: codes of findings that reports leave out.
        grid: the axes; a mapping will do.  Its axes win over the recipe.
        recipe: what is the same for all points; a mapping will do ("model.width" for options).

    Raises:
        SpecError: everything that is wrong with it, at once.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)

    study: Annotated[str | None, _option("study")] = None
    dataset: Annotated[str, _option("dataset")] = _DEFAULTS.dataset
    model: Annotated[str, _option("model")] = _DEFAULTS.model
    objective: Annotated[str | None, _option("objective")] = None
    metric: Annotated[str, _option("metric")] = "value"
    direction: Annotated[str, _option("direction")] = "maximize"
    seeds: Annotated[int | tuple[int, ...], _option("seeds")] = 1
    val: Annotated[float, _option("val")] = _DEFAULTS.val
    subset: Annotated[int | None, _option("subset")] = _DEFAULTS.subset
    folds: Annotated[int | None, _option("folds")] = None
    group: Annotated[str | None, _option("group")] = None
    version: Annotated[str | None, _option("version")] = None
    sample: Annotated[int | None, _option("sample")] = None
    order: Annotated[str, _option("order")] = ORDERS[0]
    ignore: Annotated[tuple[str, ...], _option("ignore")] = ()
    grid: Annotated[Grid, _converted(Grid, Grid)] = Field(default_factory=Grid)
    recipe: Annotated[Recipe | Params, _converted((Recipe, Params), Recipe.of)] = Field(
        default_factory=Recipe
    )

    def __init__(self, **values: Any) -> None:
        if kind_of(values).free_axes:
            values["grid"] = _for_function(values.get("grid", {}), Grid, Grid.of_params)
            values["recipe"] = _for_function(values.get("recipe", {}), Params, Params)
        wrong = list(_of_another_kind(values))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SpecError([*_problems(error, type(self).model_fields), *wrong]) from None
        if wrong:
            raise SpecError(wrong)

    @model_validator(mode="after")
    def _seeds_once(self) -> Self:
        if self.grid.seeds is not None and "seeds" in self.model_fields_set:
            raise InvalidValue("seeds: the grid has a seed axis as well")
        return self

    @model_validator(mode="after")
    def _metric_of_kind(self) -> Self:
        if "metric" in self.model_fields_set:
            check_metric(self.metric, self.kind)
        return self

    @model_validator(mode="after")
    def _group_once(self) -> Self:
        name = f"{DATA_PREFIX}{GROUP}"
        if self.group is not None and name in (*self.recipe.flat(), *self.grid.axes):
            raise InvalidValue(f"group: {name} is given as well; give only one of them")
        return self

    @model_validator(mode="after")
    def _folds_or_val(self) -> Self:
        if self.folds is not None and "val" in self.model_fields_set:
            raise InvalidValue(
                f"folds: each of the {self.folds} holds out its own share; val has no place beside them"
            )
        return self

    @property
    def kind(self) -> StudyKind:
        """What it is of."""
        return kind_of({"objective": self.objective})

    @property
    def name(self) -> str:
        """The study's name: as given, or after what it is of."""
        return default_name(getattr(self, self.kind.subject)) if self.study is None else self.study

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of every point's replicates."""
        if self.grid.seeds is not None:
            return self.grid.seeds
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks unintended, one line each; `expand` finds more."""
        unsaid = "direction" not in self.model_fields_set and less_is_better(self.metric)
        if "direction" not in self.kind.options or not unsaid:
            return self.grid.warnings
        upward = f"metric {self.metric!r} is maximized; if less is better, give direction minimize"
        return (*self.grid.warnings, upward)

    @property
    def image_metric(self) -> str | None:
        """The name of the metric of images that was asked for; None where none was, or for a function."""
        asked = self.kind.classifies and self.metric != type(self).model_fields["metric"].default
        return image_metric(self.metric).name if asked else None

    def fixed(self) -> dict[str, Value]:
        """Return what holds for every point unless the grid says otherwise, by axis."""
        return self.recipe.flat() | {name: getattr(self, name) for name in self.kind.options if name in AXES}

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back."""
        return {
            "study": self.study,
            **{name: getattr(self, name) for name in self._written},
            "seeds": self.seeds if isinstance(self.seeds, int) else list(self.seeds),
            **({} if self.version is None else {"version": self.version}),
            **({} if self.sample is None else {"sample": self.sample}),
            **({} if self.order == ORDERS[0] else {"order": self.order}),
            **({"ignore": list(self.ignore)} if self.ignore else {}),
            "grid": self.grid.to_json(),
            "recipe": self.recipe.flat(),
        }

    @property
    def _written(self) -> Iterator[str]:
        """The options that `to_json` writes: what few studies have only where there is one."""
        for name in self.kind.options:
            left_out = (
                (name == "val" and self.folds is not None)
                or (name == "metric" and self.kind.classifies and self.image_metric is None)
                or (name in ("folds", "group") and getattr(self, name) is None)
            )
            if not left_out:
                yield name

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            SpecError: it is not what this version's `to_json` writes.
        """
        grid = Grid.from_json(data["grid"], free=kind_of(data).free_axes)
        skipped = ("grid", "code", SAMPLED_FROM, *(("seeds",) if grid.seeds is not None else ()))
        return cls(**{k: v for k, v in data.items() if k not in skipped}, grid=grid)

    def arguments(self) -> tuple[str, ...]:
        """Return the command line's arguments that give this study again, without a study file."""
        arguments = ["--study", self.name]
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        # What the grid sets at every point would be refused as given twice.
        gridded = set(self.grid.axes) - {condition.axis for condition in self.grid.parts.conditions}
        free = self.kind.free_axes
        for name in self.kind.options:
            value = getattr(self, name)
            if value != defaults[name] and (free or name not in gridded):
                arguments += [f"--{name}", repr(value) if name == "val" else str(value)]
        if self.version is not None:
            arguments += ["--version", self.version]
        if self.sample is not None:
            arguments += ["--sample", str(self.sample)]
        if self.order != ORDERS[0]:
            arguments += ["--order", self.order]
        if self.ignore:
            arguments += ["--ignore", ",".join(self.ignore)]
        arguments += self.grid.arguments()
        if self.grid.seeds is None and isinstance(self.seeds, int) and self.seeds != 1:
            arguments += ["--seeds", str(self.seeds)]
        elif not isinstance(self.seeds, int):
            arguments += ["--grid", f"seed={','.join(map(str, self.seeds))}"]
        for name, value in self.recipe.changes().items():
            if name not in gridded:
                arguments += ["--set", f"{name}={write_scalar(find_axis(name, free=free), value)}"]
        return tuple(arguments)

    def command(self) -> str:
        """Return the command that runs this study again."""
        return shlex.join(("gridsearch", "run", *self.arguments()))


def _problems(error: ValidationError, fields: Mapping[str, object]) -> list[str]:
    """Return pydantic's findings as lines of ours."""
    lines: list[str] = []
    for found in error.errors():
        place = ".".join(map(str, found["loc"]))
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, _Several):
            lines += cause.problems
        elif found["type"] == "extra_forbidden":
            lines.append(refusal(place, fields))
        else:
            text = str(cause) if cause is not None else found["msg"]
            lines.append(f"{place}: {text}" if place else text)
    return list(dict.fromkeys(lines))
