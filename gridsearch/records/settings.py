"""Everything besides the seed that decides a trial's result, and its content address: what a spec expands into.

`Settings` is what all kinds of studies have in common; `ImageSettings` and `FunctionSettings` are the two there
are.  Which one a stored trial has is decided where its JSON is read (`Settings.from_json`), and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

from gridsearch.records.axis import Value
from gridsearch.records.study_kinds import StudyKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import TypeVar as TypeVarWithDefault

    SettingsT_co = TypeVarWithDefault("SettingsT_co", bound="Settings", default="Settings", covariant=True)
    """The settings of a trial, a lane or a pack: any, where nothing is said."""

Shape: TypeAlias = "tuple[tuple[str, tuple[bool, Value]], ...]"

_S = TypeVar("_S", bound="Settings")
VERSION_OF = " of "
"""Between the name of an address and the name of what it is of ("model_version of my_net.py:Net")."""

_TYPES: dict[str, type[Settings]] = {}


class Settings(ABC):
    """Everything besides the seed that decides a trial's result: the point, typed and complete.

    Subclasses are frozen dataclasses of JSON-able values.

    Attributes:
        kind: what a study of such settings is of.
        mark: the field that tells their JSON from that of other types; "" for the type whose JSON bears no mark.
        code_version: what the user says that the version of their own code is: it stands for what has no address.
        code: display name of what is trained or called, and the address of its source.
    """

    __slots__ = ()

    kind: ClassVar[StudyKind]
    mark: ClassVar[str]
    code_version: str | None

    @property
    def data_fingerprint(self) -> str:
        """The address of the data that it trains on; "" where there is none."""
        return ""

    @property
    def trains_on_all(self) -> bool:
        """Whether nothing of its data is held out, so that it has no validation metric."""
        return False

    @property
    def fold(self) -> int | None:
        """The fold of a cross-validation that a trial holds out; None without one."""
        return None

    @property
    def folds(self) -> int | None:
        """The number of folds of a cross-validation; None without one."""
        return None

    def point(self) -> Self:
        """Return the settings of the trial's point: the same for all its replicates, whatever fold they hold out."""
        return self

    def replicate(self, seed: int) -> dict[str, int]:
        """Return which replicate of its point a trial is: its seed, and its fold where there are folds."""
        return {"seed": seed} if self.fold is None else {"seed": seed, "fold": self.fold}

    def replicates(self, seed: int) -> Sequence[Self]:  # noqa: ARG002 - whose partition the folds are of
        """Return the settings of a seed's trials of this point: one for each fold where there are folds."""
        return (self,)

    @property
    @abstractmethod
    def code(self) -> tuple[str, str | None]:
        """See the class."""

    @property
    @abstractmethod
    def length(self) -> int | None:
        """The epochs that a trial trains; None where nobody knows beforehand how many steps come."""

    @abstractmethod
    def get(self, axis: str, default: Value = None) -> Value:
        """Return the value of an axis, of a recipe key, or of an option ("model.width")."""

    @abstractmethod
    def flat(self) -> dict[str, Value]:
        """Return all settings as one flat mapping: options as "model.NAME" and "data.NAME", params by their names."""

    @abstractmethod
    def changed(self, axis: str, value: Value) -> Self:
        """Return settings with another value of an axis."""

    @property
    @abstractmethod
    def uses(self) -> tuple[tuple[str, str], ...]:
        """Kind and display name of each plug-in that such a trial runs; the kind is the option that names it."""

    def split(self) -> tuple[Value, ...]:
        """Return what decides which of its data is held out: values over other examples are not paired."""
        return ()

    @abstractmethod
    def versions(self) -> dict[str, str | None]:
        """Return the address of its code and its data, by the name of the axis that is shown where one differs."""

    @abstractmethod
    def facts(self) -> dict[str, Value]:
        """Return what may differ among the trials of a study: `flat`, each address under the name of what it is of.

        A source belongs to its model and a content to its options: two models differ in their source without
        either having changed.
        """

    @abstractmethod
    def scored_on(self) -> tuple[Value, ...]:
        """Return what trials must have alike for their metrics to be compared at all."""

    @abstractmethod
    def peers(self) -> tuple[Value, ...]:
        """Return what trials must have alike for their curves to be compared step by step."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back."""

    @abstractmethod
    def shape(self) -> Shape:
        """Return all shaping settings: trials may share a pack where these are equal, and nowhere else."""

    @abstractmethod
    def key_content(self) -> dict[str, Any]:
        """Return what of `to_json` belongs to the content address."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return settings that can be of this type alone.

        Raises:
            TypeError: they are of another.
        """
        if not isinstance(settings, cls):
            raise TypeError(f"settings of {settings.kind.name}, where only {cls.kind.name} can be")
        return settings

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Settings:
        """Read what `to_json` wrote, of whatever kind it is."""
        marked = next((mark for mark in _TYPES if mark and mark in data), "")
        return _TYPES[marked](**data)


if not TYPE_CHECKING:
    SettingsT_co = TypeVar("SettingsT_co", bound=Settings, covariant=True)  # `wire` reads the bound


def register(settings: type[_S]) -> type[_S]:
    """Let the JSON of a type of settings be read; a class decorator."""
    _TYPES[settings.mark] = settings
    return settings


def trial_key(settings: Settings, seed: int) -> str:
    """Return the content address of a trial: SHA-256 of the canonical JSON of all that decides its result.

    Canonical: keys sorted, no white space, floats as their shortest repr, no NaN.  Of images the dataset's name and
    options are left out, since the fingerprint says what the data is wherever it lies.  Settings that came later
    are left out at their defaults: with them the trials of older stores would not be found, and train again.
    """
    return trial_keys(settings, (seed,))[0]


def point_address(settings: Settings) -> str:
    """Return the content address of a trial's point: the same for all its replicates."""
    return trial_key(settings.point(), 0)


def trial_keys(settings: Settings, seeds: Sequence[int]) -> list[str]:
    """Return `trial_key` for each seed, with the text made once."""
    content = settings.key_content() | {"seed": 0}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    # The last one is ours: an option or param of that name lies in a mapping which sorts before.
    head, mark, tail = text.rpartition(',"seed":0')
    assert mark
    return [hashlib.sha256(f'{head},"seed":{seed}{tail}'.encode()).hexdigest() for seed in seeds]
