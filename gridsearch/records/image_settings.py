"""The settings of a trial that trains a network on images, and the one declaration of each recipe key.

A new key is declared here: the grid, the recipe, bounds, help, the docs' table, the plan and the store's columns
follow; what remains is the code that obeys it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from gridsearch.records.axis import (
    COUNT,
    FRACTION,
    LARGEST_INT,
    NOT_NEGATIVE,
    POSITIVE,
    WHOLE,
    AxisScope,
    Bounds,
    Value,
    axes_of,
    identity,
    key,
)
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.records.settings import VERSION_OF, Settings, Shape, register
from gridsearch.records.study_kinds import IMAGES, StudyKind

MODEL_VERSION = "model_version"
"""Shown when one model's source file differs among the trials: the first digits of its SHA-256."""

OPTIMIZER_VERSION, AUGMENT_VERSION = "optimizer_version", "augment_version"
"""Likewise of one optimizer's and of one augmentation's."""

DATA_VERSION = "data_version"
"""Shown when the dataset's content differs among the trials: the first digits of its fingerprint."""

MODEL_PREFIX = "model."
DATA_PREFIX = "data."
OPTIMIZER_PREFIX = "optimizer."

CODE_KEYS = ("model", "optimizer", "augment")
"""Settings whose values may name code of the user's own, which is then a part of a trial's key."""

GROUP = "group"
"""The option of a dataset that says which column its images are grouped by; `--group` sets it."""

_ALPHA = Bounds(0.0, 1e6)
"""Beyond it all shares are a half to three digits."""

_EXPONENT = Bounds(0.0, 100.0)
"""Beyond it losses and gradients are zero in float32 before anything is learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeKeys:
    """The keys of the recipe: what is the same for every point, unless the grid says otherwise."""

    epochs: int = key(10, "number of passes over the training images", COUNT, fusible=True)
    batch: int = key(64, "batch size, in images", COUNT, log=True, alias="batch_size")
    lr: float = key(0.001, "learning rate", POSITIVE, fusible=True, log=True, alias="learning_rate")
    norm: str = key(
        "standard", "normalization of the images", "none standard", fusible=True, alias="normalization"
    )
    optimizer: str = key("adam", "optimizer", "sgd adam adamw nadam rmsprop", own=True)
    momentum: float = key(0.0, "momentum of sgd", FRACTION, fusible=True)
    nesterov: bool = key(False, "use Nesterov momentum (sgd)", fusible=True)
    weight_decay: float = key(0.0, "weight decay", NOT_NEGATIVE, fusible=True)
    clip_norm: float | None = key(
        None, "clip the gradient to this norm, over all parameters", POSITIVE, fusible=True, later=True
    )
    clip_value: float | None = key(
        None, "clip each value of the gradient to this size", POSITIVE, fusible=True, later=True
    )
    schedule: str = key("constant", "learning rate schedule", "constant step cosine onecycle", fusible=True)
    warmup: float = key(
        0.0, "epochs of linear warm-up of the learning rate, also fractions", NOT_NEGATIVE, fusible=True
    )
    augment: str = key(
        "none",
        "augmentation of training images",
        "none flip shift flip+shift erase randaugment flip+randaugment flip+shift+randaugment",
        own=True,
    )
    operations: int = key(
        2, "number of randaugment operations per image", Bounds(1, 14), fusible=True, later=True
    )
    magnitude: int = key(9, "strength of the randaugment operations", Bounds(0, 30), fusible=True, later=True)
    mixup: float = key(
        0.0,
        "alpha of mixup, which blends pairs of images and labels; 0: off",
        _ALPHA,
        fusible=True,
        later=True,
    )
    cutmix: float = key(
        0.0,
        "alpha of cutmix, which pastes boxes of other images; 0: off",
        _ALPHA,
        fusible=True,
        later=True,
    )
    loss: str = key("cross_entropy", "training loss", "cross_entropy focal", fusible=True, later=True)
    focal_gamma: float = key(2.0, "exponent of the focal loss", _EXPONENT, fusible=True, later=True)
    class_weight: str = key(
        "none",
        "class weights in the loss; balanced: inverse to the number of images",
        "none balanced",
        fusible=True,
        later=True,
    )
    sampling: str = key(
        "none",
        "sampling of an epoch's images; none: each once, balanced: all classes equally often",
        "none balanced",
        fusible=True,
        later=True,
        alias="sampler",
    )
    label_smoothing: float = key(0.0, "label smoothing", FRACTION, fusible=True)
    dropout: float | None = key(
        None, "rate of all dropout layers; none: the model's own rates", FRACTION, fusible=True
    )
    drop_last: bool = key(False, "drop an epoch's last batch if it is smaller")
    # Begun at zero and rid of that bias (temporal averaging of Kingma & Ba 2015, Adam, section 7.2); the average
    # is evaluated, selected and exported in the weights' stead.
    ema: float = key(
        0.0,
        "decay of the moving average of the weights, which is then evaluated; 0: off",
        FRACTION,
        fusible=True,
        later=True,
    )
    select: str = key(
        "last",
        "the epoch whose result counts: the last, or the best by the study's metric",
        "last best",
        fusible=True,
    )
    patience: int | None = key(
        None,
        "stop after this many epochs without improvement; none: never",
        COUNT,
        fusible=True,
        later=True,
    )
    dtype: str = key("float32", "precision of the arithmetic", "float32 float64 bfloat16 tf32")
    split_seed: int = key(0, "seed of the test, validation and subset splits", WHOLE, scope=AxisScope.RECIPE)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings(RecipeKeys, Settings):
    """The settings of a trial that trains a network on images; each key says in its declaration what it is.

    Attributes:
        dataset: display name ("fmnist", "folder:flowers", "my_data.py:Digits"); not part of the key,
            `data_fingerprint` stands for it.
        data_options: the `data.*` options, complete with their defaults; not part of the key either.
        data_fingerprint: SHA-256 over the images and labels (or over their pinned checksums).
        val: fraction of the training images held out for validation; 0 trains on all.  With folds one over their
            number.
        folds: number of folds of a cross-validation; None for one split into training and validation.
        group: what images are grouped by where no split divides a group; None where each image is by itself.  The key
            holds that there is one: `data_fingerprint` says which images are of one group.
        fold: which fold is held out, 1 to `folds`; with the seed it says which replicate of its point a trial is.
        partition: seed of the partition into folds: that of the trial, so that each seed has a partition of its own.
        subset: train on that many images of the training split, stratified; None for all.
        model: display name ("lenet", "my_net.py:Net").
        model_options: the `model.*` options, complete with their defaults.
        model_source: the address of a user's own model: SHA-256 of its source file, of what that imports from own
            folders, and of files that its options name; None for an installed model without such files.
        optimizer_options: the `optimizer.*` options of an optimizer that is not built in, complete with their defaults.
        optimizer_source: the address of a user's own optimizer, likewise `augment_source` of their own augmentation.
    """

    kind: ClassVar[StudyKind] = IMAGES
    mark: ClassVar[str] = ""

    dataset: str = key(
        "fmnist",
        "dataset: a name, folder:PATH, csv:FILE, npz:FILE, hf:NAME or file.py:Name",
        scope=AxisScope.STUDY,
    )
    data_options: Mapping[str, Value] = field(default_factory=dict)
    data_fingerprint: str = key("", "SHA-256 of the data", scope=AxisScope.DERIVED)
    val: float = key(
        1 / 6, "fraction of the training images held out for validation", FRACTION, scope=AxisScope.STUDY
    )
    subset: int | None = key(
        None, "number of training images to train on", COUNT, scope=AxisScope.STUDY, log=True
    )
    folds: int | None = key(
        None,
        "number of folds of a stratified cross-validation",
        Bounds(low=2, high=LARGEST_INT),
        scope=AxisScope.STUDY,
        later=True,
    )
    group: str | None = key(
        None,
        "groups of images that stay in one split: a column, subfolder or groups",
        scope=AxisScope.STUDY,
        later=True,
    )
    fold: int | None = key(
        None, "the fold that is held out", COUNT, fusible=True, scope=AxisScope.DERIVED, later=True
    )
    partition: int | None = key(
        None, "seed of the partition into folds", WHOLE, fusible=True, scope=AxisScope.DERIVED, later=True
    )
    model: str = key("lenet", "model: a name, timm:NAME, torchvision:NAME or file.py:Name")
    model_options: Mapping[str, Value] = field(default_factory=dict)
    model_source: str | None = key(None, "SHA-256 of the model's file", scope=AxisScope.DERIVED)
    optimizer_options: Mapping[str, Value] = field(default_factory=dict)
    optimizer_source: str | None = key(
        None, "SHA-256 of the optimizer's file", scope=AxisScope.DERIVED, later=True
    )
    augment_source: str | None = key(
        None, "SHA-256 of the augmentation's file", scope=AxisScope.DERIVED, later=True
    )
    select_metric: str = key(
        ACCURACY,
        "metric that compares epochs",
        scope=AxisScope.DERIVED,
        fusible=True,
        later=True,
    )
    code_version: str | None = key(
        None, "version of the user's own code", scope=AxisScope.DERIVED, later=True
    )

    @property
    def length(self) -> int:
        """The epochs that a trial trains."""
        return self.epochs

    @property
    def trains_on_all(self) -> bool:
        """Whether no validation images are held out."""
        return self.val == 0

    @property
    def code(self) -> tuple[str, str | None]:
        """The model and its source."""
        return self.model, self.model_source

    def get(self, axis: str, default: Value = None) -> Value:
        """Return the value of an axis, of a recipe key, or of an option ("model.width")."""
        for prefix, options in self._options():
            if axis.startswith(prefix):
                return options.get(axis.removeprefix(prefix), default)
        value: Value = getattr(self, axis, default)
        return value

    def flat(self) -> dict[str, Value]:
        """Return all settings of the point as one flat mapping, options as "model.NAME", "data.NAME" and the like."""
        values: dict[str, Value] = {}
        for name, value in self.to_json().items():
            if name in _OF_REPLICATE:
                continue
            if name.endswith("_options"):
                values |= {f"{name.removesuffix('_options')}.{k}": v for k, v in value.items()}
            else:
                values[name] = value
        return values

    def _options(self) -> tuple[tuple[str, Mapping[str, Value]], ...]:
        """Return the options of plug-ins by the prefix of their names."""
        return (
            (MODEL_PREFIX, self.model_options),
            (DATA_PREFIX, self.data_options),
            (OPTIMIZER_PREFIX, self.optimizer_options),
        )

    def changed(self, axis: str, value: Value) -> Self:
        """Return settings with another value of an axis."""
        owner, dot, option = axis.partition(".")
        if not dot:
            return replace(self, **{axis: value})  # type: ignore[arg-type]
        name = f"{owner}_options"
        return replace(self, **{name: {**getattr(self, name), option: value}})  # type: ignore[arg-type]

    @property
    def uses(self) -> tuple[tuple[str, str], ...]:
        """The dataset, the model, and what else is no built-in word."""
        named = (("optimizer", self.optimizer), ("augment", self.augment))
        others = tuple((kind, name) for kind, name in named if ":" in name)
        return ("dataset", self.dataset), ("model", self.model), *others

    def point(self) -> Self:
        """Return the settings of the point, whichever fold is held out."""
        return self if self.folds is None else replace(self, fold=None, partition=None)

    def replicates(self, seed: int) -> tuple[Self, ...]:
        """Return the settings of a seed's trials of this point: one for each fold of the seed's own partition."""
        if self.folds is None:
            return (self,)
        return tuple(replace(self, fold=fold, partition=seed) for fold in range(1, self.folds + 1))

    def split(self) -> tuple[Value, ...]:
        """Return what decides which images are held out; with folds also the trial's seed and fold do."""
        return self.val, self.split_seed, self.folds, self.group

    def versions(self) -> dict[str, str | None]:
        """Return the sources of the model and of what else is the user's own, and the images' fingerprint."""
        own = {OPTIMIZER_VERSION: self.optimizer_source, AUGMENT_VERSION: self.augment_source}
        found = {name: source for name, source in own.items() if source is not None}
        return {MODEL_VERSION: self.model_source, DATA_VERSION: self.data_fingerprint} | found

    def facts(self) -> dict[str, Value]:
        """Return all settings, the source by its model and the fingerprint by the options of the images."""
        found = self.flat() | {name: getattr(self, name) for name in ("code_version", "folds", "group")}
        del found["dataset"]
        del found["select_metric"]  # a study has one metric; points that compare no epochs have the default
        content = found.pop("data_fingerprint")
        for version, name in (
            (MODEL_VERSION, "model"),
            (OPTIMIZER_VERSION, "optimizer"),
            (AUGMENT_VERSION, "augment"),
        ):
            source = found.pop(f"{name}_source", None)
            if source is not None:
                found[f"{version}{VERSION_OF}{getattr(self, name)}"] = source
        options = json.dumps(self.data_options, sort_keys=True, separators=(",", ":"))
        found[f"{DATA_VERSION}{VERSION_OF}{options}"] = content
        return found

    def scored_on(self) -> tuple[Value, ...]:
        """Return the address of the images."""
        return (self.data_fingerprint,)

    def peers(self) -> tuple[Value, ...]:
        """Return the images that trials train on and are scored on, and their epochs.

        A trial of 10 epochs is at another place of its schedule after the fifth than one of 50.  With folds a
        trial is compared with those of its own fold alone: else all trials of the hardest fold would end early.
        """
        replicate = self.fold, self.partition
        return (self.data_fingerprint, *self.split(), *replicate, self.subset, self.epochs)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back; what few trials have only where there is some."""
        found = {f: getattr(self, f) for f in _FIELDS}
        found |= {f: dict(found[f]) for f in _OPTIONS}
        for f in _SELDOM:
            if found[f] in (None, {}):
                del found[f]
        return found

    def shape(self) -> Shape:
        """Return all settings in which the lanes of a pack must not differ, options included.

        Whether a recipe sets the dropout rate is one of them, the rate is not: a pack's layers are those of one lane's
        model, in which the model's own rates are lost once the recipe's stands there.
        """
        flat = sorted(self.flat().items())
        shaping = tuple((name, identity(value)) for name, value in flat if name not in _FUSIBLE)
        return shaping if self.dropout is None else (*shaping, ("dropout", identity("given")))

    def key_content(self) -> dict[str, Any]:
        """Return what of `to_json` belongs to the content address."""
        return {
            name: value if name != GROUP else True
            for name, value in self.to_json().items()
            if name not in ("dataset", "data_options") and not (name in LATER and value == LATER[name])
        }


_OF_REPLICATE = ("fold", "partition")
"""What tells the replicates of a point from each other, beside the seed."""

_SELDOM = (
    *("optimizer_options", "optimizer_source", "augment_source", "code_version"),
    *("folds", GROUP, *_OF_REPLICATE),
)

_OPTIONS = ("data_options", "model_options", "optimizer_options")

_FIELDS = (  # what is trained on and which model, then how
    *(f.name for f in dataclasses.fields(ImageSettings)[len(dataclasses.fields(RecipeKeys)) :]),
    *(f.name for f in dataclasses.fields(RecipeKeys)),
)

KEYS = axes_of(ImageSettings)
"""Every key, as it is declared."""

LATER: Mapping[str, Value] = MappingProxyType({axis.name: axis.default for axis in KEYS if axis.later})
"""Settings that came when stores held trials already, with their defaults, which are what those trials had."""

_FUSIBLE = frozenset(axis.name for axis in KEYS if axis.fusible)
