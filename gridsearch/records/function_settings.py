"""The settings of a trial that calls a plain function of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from gridsearch.records.axis import Value, identity
from gridsearch.records.settings import VERSION_OF, Settings, Shape, register
from gridsearch.records.study_kinds import FUNCTION, StudyKind

OBJECTIVE_VERSION = "objective_version"
"""Shown when the source of the function differs among the trials: the first digits of its SHA-256."""


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings(Settings):
    """The settings of a trial that calls a plain function: the function, its source and its params.

    Attributes:
        objective: display name of the function ("fit.py:loss").
        objective_source: the address of the function's code: SHA-256 of its file, or of all that it reaches.
        params: what the function is called with; an axis, or set for all points.
    """

    kind: ClassVar[StudyKind] = FUNCTION
    mark: ClassVar[str] = "objective"

    objective: str
    objective_source: str | None = None
    params: Mapping[str, Value] = field(default_factory=dict)
    code_version: str | None = None

    @property
    def length(self) -> None:
        """Nothing: nobody knows beforehand how many steps come."""
        return

    @property
    def code(self) -> tuple[str, str | None]:
        """The function and its source."""
        return self.objective, self.objective_source

    def get(self, axis: str, default: Value = None) -> Value:
        """Return the value of a param, or what is known of the function itself."""
        if axis in ("objective", "objective_source", "code_version"):
            value: Value = getattr(self, axis)
            return value
        return self.params.get(axis, default)

    def flat(self) -> dict[str, Value]:
        """Return all settings as one flat mapping, params by their names."""
        return {
            "objective": self.objective,
            "objective_source": self.objective_source,
            **self.params,
            **({} if self.code_version is None else {"code_version": self.code_version}),
        }

    def changed(self, axis: str, value: Value) -> Self:
        """Return settings with another value of a param."""
        return replace(self, params={**self.params, axis: value})

    @property
    def uses(self) -> tuple[tuple[str, str], ...]:
        """The function."""
        return (("objective", self.objective),)

    def versions(self) -> dict[str, str | None]:
        """Return the function's source."""
        return {OBJECTIVE_VERSION: self.objective_source}

    def facts(self) -> dict[str, Value]:
        """Return all settings, the source by its function."""
        found = self.flat()
        found[f"{OBJECTIVE_VERSION}{VERSION_OF}{found.pop('objective')}"] = found.pop("objective_source")
        return found

    def scored_on(self) -> tuple[Value, ...]:
        """Return the function and its source."""
        return self.code

    def peers(self) -> tuple[Value, ...]:
        """Return the function and its source."""
        return self.code

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back; a version only where there is one."""
        return {
            "objective": self.objective,
            "objective_source": self.objective_source,
            "params": dict(self.params),
            **({} if self.code_version is None else {"code_version": self.code_version}),
        }

    def shape(self) -> Shape:
        """Return the function: its trials run one after another in a pack, whatever they differ in."""
        return (("objective", identity(self.objective)),)

    def key_content(self) -> dict[str, Any]:
        """Return all of `to_json`."""
        return self.to_json()
