"""Everything besides the seed that decides a trial's result, and its content address: what a spec expands into."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self, TypeAlias

Value: TypeAlias = bool | int | float | str | None
"""What an axis may hold."""

MODEL_PREFIX = "model."
DATA_PREFIX = "data."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides the seed that decides a trial's result: the point, typed and complete.

    Attributes:
        dataset: display name ("fmnist", "folder:flowers", "my_data.py:Digits"); not part of the key,
            `data_fingerprint` stands for it.
        data_options: the `data.*` options, complete with their defaults.
        data_fingerprint: SHA-256 over the images and labels (or over their pinned checksums).
        val: fraction of the training images held out for validation; 0 trains on all.
        split_seed: fixes the test, validation and subset splits.
        subset: train on that many images of the training split, stratified; None for all.
        model: display name ("lenet", "my_net.py:Net").
        model_options: the `model.*` options, complete with their defaults.
        model_source: the address of a user's own model: SHA-256 of its source file, of what that imports from own
            folders, and of files that its options name; None for an installed model without such files.
        dropout: rate for every dropout layer; None leaves them as the model has them.
        warmup: epochs (may be fractional) of linear warm-up.
        ema: decay of the moving average of the weights, begun at zero and rid of that bias, which is evaluated,
            selected and exported in their stead (temporal averaging of Kingma & Ba 2015, Adam, section 7.2); 0
            for the weights themselves.
        select: "last" or "best", the epoch that counts.
        objective: display name of a plain function ("fit.py:loss"); then the function, its source and `params`
            are all that there is, and everything above keeps its default.  None for training on images.
        objective_source: the address of the function's code: SHA-256 of its file, or of all that it reaches.
        code_version: what the user says that the version of their own code is: it stands for what has no address.
        params: what the function is called with; an axis, or set for all points.
    """

    dataset: str = ""
    data_options: Mapping[str, Value] = field(default_factory=dict)
    data_fingerprint: str = ""
    val: float = 1 / 6
    split_seed: int = 0
    subset: int | None = None
    model: str = "lenet"
    model_options: Mapping[str, Value] = field(default_factory=dict)
    model_source: str | None = None
    epochs: int = 10
    batch: int = 64
    lr: float = 0.001
    norm: str = "standard"
    optimizer: str = "adam"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    augment: str = "none"
    label_smoothing: float = 0.0
    dropout: float | None = None
    drop_last: bool = False
    ema: float = 0.0
    select: str = "last"
    dtype: str = "float32"
    objective: str | None = None
    objective_source: str | None = None
    params: Mapping[str, Value] = field(default_factory=dict)
    code_version: str | None = None

    @property
    def uses(self) -> tuple[tuple[str, str], ...]:
        """Kind and display name of what such a trial runs: of the objective, or of the dataset and the model."""
        if self.objective is not None:
            return (("objective", self.objective),)
        return (("dataset", self.dataset), ("model", self.model))

    @property
    def length(self) -> int | None:
        """The epochs that a trial trains; None for a function, whose steps nobody knows beforehand."""
        return self.epochs if self.objective is None else None

    def get(self, axis: str, default: Value = None) -> Value:
        """Return the value of an axis, of a recipe key, or of an option ("model.width")."""
        if self.objective is not None and axis not in _FUNCTION_FIELDS[:2]:
            return self.params.get(axis, default)
        if axis.startswith(MODEL_PREFIX):
            return self.model_options.get(axis.removeprefix(MODEL_PREFIX), default)
        if axis.startswith(DATA_PREFIX):
            return self.data_options.get(axis.removeprefix(DATA_PREFIX), default)
        value: Value = getattr(self, axis, default)
        return value

    def flat(self) -> dict[str, Value]:
        """Return all settings as one flat mapping: options as "model.NAME" and "data.NAME", params by their names."""
        if self.objective is not None:
            return {
                "objective": self.objective,
                "objective_source": self.objective_source,
                **self.params,
                **({} if self.code_version is None else {"code_version": self.code_version}),
            }
        values: dict[str, Value] = {}
        for f in _IMAGE_FIELDS:
            value = getattr(self, f)
            if f == "model_options":
                values |= {MODEL_PREFIX + k: v for k, v in value.items()}
            elif f == "data_options":
                values |= {DATA_PREFIX + k: v for k, v in value.items()}
            elif f != "code_version" or value is not None:
                values[f] = value
        return values

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back: what a function has, or what images need."""
        fields = _IMAGE_FIELDS if self.objective is None else _FUNCTION_FIELDS
        found = {f: dict(v) if isinstance(v := getattr(self, f), Mapping) else v for f in fields}
        if self.code_version is None:
            del found["code_version"]
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**data)


LATER: Mapping[str, Value] = MappingProxyType({"ema": 0.0, "code_version": None})
"""Settings that came when stores held trials already, with their defaults, which are what those trials had."""

_FUNCTION_FIELDS = ("objective", "objective_source", "params", "code_version")
_IMAGE_FIELDS = tuple(f.name for f in dataclasses.fields(Settings) if f.name not in _FUNCTION_FIELDS[:3])


def trial_key(settings: Settings, seed: int) -> str:
    """Return the content address of a trial: SHA-256 of the canonical JSON of all that decides its result.

    Canonical: keys sorted, no white space, floats as their shortest repr, no NaN.  The dataset's name and
    options are left out, since the fingerprint says what the data is wherever it lies.  Settings that came later
    are left out at their defaults: with them the trials of older stores would not be found, and train again.
    """
    return trial_keys(settings, (seed,))[0]


def trial_keys(settings: Settings, seeds: Sequence[int]) -> list[str]:
    """Return `trial_key` for each seed, with the text made once."""
    content = settings.to_json()
    for name in ("dataset", "data_options"):
        content.pop(name, None)
    for name, default in LATER.items():
        if name in content and content[name] == default:
            del content[name]
    content["seed"] = 0
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    # The last one is ours: an option or param of that name lies in a mapping which sorts before.
    head, mark, tail = text.rpartition(',"seed":0')
    assert mark
    return [hashlib.sha256(f'{head},"seed":{seed}{tail}'.encode()).hexdigest() for seed in seeds]
