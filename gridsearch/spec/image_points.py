"""Makes the settings of points that train networks on images; a part of `expand`.

What models and datasets are called, their options with defaults and their addresses come through a `Resolver`.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gridsearch.errors import PluginError, SpecError
from gridsearch.records import DATA_PREFIX, MODEL_PREFIX, OPTIMIZER_PREFIX, ImageSettings
from gridsearch.records.axis import identity
from gridsearch.records.image_metrics import METRICS, image_metric
from gridsearch.spec.axes import find_axis
from gridsearch.spec.axis_values import plain_option
from gridsearch.spec.collector import ErrorCollector
from gridsearch.spec.grammar import write_scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.records import TrialDraft, Value
    from gridsearch.spec.grid import GridPoint
    from gridsearch.spec.study import StudySpec

_T = TypeVar("_T")


class Resolver(Protocol):
    """What the spec asks of those who know the plug-ins; asked once for each name with its options."""

    def model(self, name: str, options: Mapping[str, Value]) -> tuple[str, Mapping[str, Value], str | None]:
        """Return a model's display name, its options complete with defaults, and the hash of its source.

        Raises:
            PluginError: there is no such model.
            SpecError: it does not take these options.
        """
        ...

    def data(self, options: Mapping[str, Value]) -> tuple[str, Mapping[str, Value], str]:
        """Return the dataset's display name, its options complete with defaults, and its fingerprint.

        Raises:
            SpecError: it does not take these options.
            DataError: it cannot be read.
        """
        ...

    def optimizer(
        self, name: str, options: Mapping[str, Value], given: Sequence[str]
    ) -> tuple[str, Mapping[str, Value], str | None]:
        """Return the display name of an optimizer that is not built in, its options and the hash of its source.

        Args:
            name: its locator.
            options: of it.
            given: keys of the recipe that it must take, since somebody gave them.

        Raises:
            PluginError: there is no such optimizer.
            SpecError: it does not take these options, or one of the keys.
        """
        ...

    def augment(self, name: str) -> tuple[str, Mapping[str, Value], str | None]:
        """Return the display name of an augmentation of the user's own, no options, and the hash of its source.

        Raises:
            PluginError: there is no such augmentation.
        """
        ...

    def grouped_by(self, name: str) -> Mapping[str, Value]:
        """Return the options with which the dataset groups its images by a column; none where it has no such option."""
        ...


DECIDED_BY: Mapping[str, str] = MappingProxyType(
    {
        "momentum": "optimizer",
        "nesterov": "optimizer",
        "operations": "augment",
        "magnitude": "augment",
        "focal_gamma": "loss",
        "patience": "epochs",
    }
)
"""What `without_effect` may name, each with the setting that decides whether it does."""


_OF_TRAIN_IMAGES = ("sampling", "augment", "mixup", "cutmix")
"""Settings that decide which images a train accuracy is of."""

_OF_THE_RATE = ("lr", "weight_decay", "schedule", "warmup")
"""Keys of the recipe that an optimizer may not know."""


def without_effect(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the settings that cannot matter beside these others, and so are set to their defaults."""
    idle: list[str] = []
    if values["optimizer"] != "sgd":
        idle += ["momentum", "nesterov"]
    elif not values["momentum"]:
        idle.append("nesterov")
    if "randaugment" not in str(values["augment"]).split("+"):
        idle += ["operations", "magnitude"]
    if values["loss"] != "focal":
        idle.append("focal_gamma")
    patience, epochs = values["patience"], values["epochs"]
    if isinstance(patience, int) and isinstance(epochs, int) and patience + 1 >= epochs:
        idle.append("patience")  # even if the first epoch is the best, it ends with the last
    return tuple(idle)


class ImagePoints:
    """Makes complete settings of points; asks the resolver once per question, and gathers its problems."""

    def __init__(self, spec: StudySpec, resolve: Resolver) -> None:
        self._spec = spec
        self._fixed = spec.fixed()
        self._resolve = resolve
        self._answers: dict[tuple[object, ...], Any] = {}
        self._problems = ErrorCollector()
        self._first: PluginError | SpecError | None = None
        self._axes: dict[tuple[object, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def settings(self, point: GridPoint) -> tuple[ImageSettings, tuple[str, ...], tuple[str, ...]] | None:
        """Return a point's settings, its axes and its inactive axes; None where the resolver refuses."""
        values = {**self._fixed, **point.values}
        plain, options = _sorted_out(values)
        model_options, data_options = options[MODEL_PREFIX], options[DATA_PREFIX]
        model = self._ask(
            ("model", plain["model"], *model_options.items()),
            lambda: self._resolve.model(str(plain["model"]), model_options),
        )
        if plain["group"] is not None:
            data_options = {**data_options, **self._grouped_by(str(plain["group"]))}
        data = self._ask(("data", *data_options.items()), lambda: self._resolve.data(data_options))
        optimizer = self._optimizer(str(plain["optimizer"]), options[OPTIMIZER_PREFIX], point)
        augment = self._augment(str(plain["augment"]))
        if model is None or data is None or optimizer is None or augment is None:
            return None
        idle = without_effect(plain)
        for name in idle:
            plain[name] = _DEFAULTS[name]
        plain["model"], plain["model_options"], plain["model_source"] = model
        plain["optimizer"], plain["optimizer_options"], plain["optimizer_source"] = optimizer
        plain["augment"], _, plain["augment_source"] = augment
        if any(plain[f"{kind}_source"] is not None for kind in ("model", "optimizer", "augment")):
            plain["code_version"] = self._spec.version  # what is installed has no code of the user's
        plain |= self._compared_by(plain)
        plain["dataset"], plain["data_options"], plain["data_fingerprint"] = data
        if (folds := plain["folds"]) is not None:
            plain["val"] = 1 / folds
        return ImageSettings(**plain), *self._axes_of(point, idle)

    def _compared_by(self, plain: Mapping[str, Any]) -> dict[str, str]:
        """Return by which metric epochs are compared, where they are and it is not accuracy."""
        asked = self._spec.image_metric
        by = "select=best" if plain["select"] == "best" else "patience"
        if asked is None or (plain["select"] != "best" and plain["patience"] is None):
            return {}
        if not image_metric(asked).each_epoch:
            known = " ".join(metric.word for metric in METRICS if metric.each_epoch)
            why = (
                f"{by} needs a metric that each epoch has ({known}), and {asked} is computed at a trial's end"
            )
            self._problems.add("", why)
        return {"select_metric": asked}

    def _optimizer(self, name: str, options: Mapping[str, Value], point: GridPoint) -> Any:
        """Return the name, options and source of an optimizer; None where the resolver refuses."""
        changed = self._spec.recipe.changes()
        given = tuple(key for key in _OF_THE_RATE if key in point.values or key in changed)

        def ask() -> tuple[str, Mapping[str, Value], str | None]:
            if ":" in name:
                return self._resolve.optimizer(name, options, given)
            if options:
                first = next(iter(options))
                raise SpecError(
                    [
                        f"optimizer.{first}: {name!r} takes no options; torch.optim:NAME and your own optimizers do"
                    ]
                )
            return name, {}, None

        return self._ask(("optimizer", name, " ".join(given), *options.items()), ask)

    def _augment(self, name: str) -> Any:
        """Return the name and source of an augmentation; None where the resolver refuses."""
        if ":" not in name:
            return name, {}, None
        return self._ask(("augment", name), lambda: self._resolve.augment(name))

    def _grouped_by(self, name: str) -> Mapping[str, Value]:
        found = self._ask(("group", name), lambda: (name, self._resolve.grouped_by(name), None))
        return {} if found is None else found[1]

    def check(self) -> None:
        """Raise what the resolver refused: its own error if it is the only one, else all at once."""
        try:
            self._problems.check()
        except SpecError as error:
            if self._first is not None and len(error.problems) == 1:
                raise self._first from None
            raise

    def _ask(
        self, question: tuple[object, ...], ask: Callable[[], tuple[str, Mapping[str, Value], _T]]
    ) -> Any:
        # Options are compared with their types: 1 and True are different ones.
        key = tuple((part[0], identity(part[1])) if isinstance(part, tuple) else part for part in question)
        if key not in self._answers:
            try:
                name, options, extra = ask()
                self._answers[key] = (name, {k: plain_option(v) for k, v in sorted(options.items())}, extra)
            except (PluginError, SpecError) as error:
                self._first = self._first or error
                for line in error.problems if isinstance(error, SpecError) else (error.message,):
                    self._problems.add("", line)
                self._answers[key] = None
        return self._answers[key]

    def _axes_of(self, point: GridPoint, idle: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        key = (point.inactive, tuple(point.values), idle)
        if key not in self._axes:
            axes = tuple(name for name in point.values if name not in idle)
            inactive = (*point.inactive, *(name for name in point.values if name in idle))
            self._axes[key] = axes, inactive
        return self._axes[key]

    def warnings(self, drafts: Sequence[TrialDraft]) -> Iterator[str]:
        """Warn of settings of the recipe that have no effect at any point, and of an axis that ranks nothing."""
        changed, axes = self._spec.recipe.changes(), self._spec.grid.axes
        for name in DECIDED_BY:
            if name in changed and name not in axes and all(_at_default(name, draft) for draft in drafts):
                text = write_scalar(find_axis(name), changed[name])
                yield f"{name}={text} of the recipe has no effect at any point"
        if any(_number(draft, "warmup") > _number(draft, "epochs") for draft in drafts):
            yield "warmup lasts longer than all epochs at some points, whose learning rate never comes to lr"
        if any(draft.settings.get("patience") and draft.settings.trains_on_all for draft in drafts):
            yield "patience uses the train accuracy, because nothing is held out (val=0)"
        for name in _OF_TRAIN_IMAGES:
            if name in axes and all(draft.settings.trains_on_all for draft in drafts):
                yield (
                    f"{name} decides which images the train accuracy is of: nothing is held out (val=0), so "
                    "points that differ in it are not comparable"
                )
        if "ema" in axes and all(draft.settings.trains_on_all for draft in drafts):
            yield (
                "ema does not move this ranking: nothing is held out (val=0), and the train accuracy is that of the "
                "weights before they are averaged"
            )


def _number(draft: TrialDraft, name: str) -> float:
    return float(draft.settings.get(name) or 0)


def _at_default(name: str, draft: TrialDraft) -> bool:
    return draft.settings.get(name) == _DEFAULTS[name]


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(ImageSettings)}


def _sorted_out(values: Mapping[str, Value]) -> tuple[dict[str, Any], dict[str, dict[str, Value]]]:
    """Part settings from the options of plug-ins, which come by the prefix of their names."""
    plain: dict[str, Any] = {}
    options: dict[str, dict[str, Value]] = {MODEL_PREFIX: {}, DATA_PREFIX: {}, OPTIMIZER_PREFIX: {}}
    for name, value in values.items():
        owner, dot, option = name.partition(".")
        if dot:
            options[owner + dot][option] = value
        else:
            plain[name] = value
    return plain, options
