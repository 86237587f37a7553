"""Finds the plain function that a study calls; what `catalog` is for datasets and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gridsearch import plugins
from gridsearch.advice import is_own
from gridsearch.errors import UsageError
from gridsearch.service.prepare.user_code import check_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gridsearch.plugins import Plugin
    from gridsearch.records import Settings


class FunctionCatalog:
    """The function of one run; the `FunctionResolver` that a spec expands with.

    Args:
        function: its locator, or the function itself.
        metric: which of its metrics ranks.
        version: stands for what of it has no address.

    Raises:
        PluginError: there is no such function, or it cannot be called with params and a seed.
    """

    def __init__(self, function: str | Any, *, metric: str, version: str | None = None) -> None:
        self.version = version
        self.plugin: Plugin = (
            plugins.find_objective(function)
            if isinstance(function, str)
            else plugins.as_objective(plugins.of_object(function, version=version))
        )
        self._metric = metric

    @property
    def subject(self) -> str:
        """What the study is about: the function's display name."""
        return self.plugin.name

    @property
    def told(self) -> dict[str, Any]:
        """What a worker is told of it."""
        return {
            "objective": self.plugin.locator or self.plugin.name,
            "metric": self._metric,
            "takes_state": plugins.takes_state(self.plugin),
        }

    @property
    def named(self) -> dict[str, dict[str, str]]:
        """What the function was named by; "" for one that lives in this process alone."""
        return (
            {"objective": {self.plugin.name: self.plugin.locator}}
            if is_own("objective", self.plugin.name)
            else {}
        )

    @property
    def own(self) -> tuple[Plugin, ...]:
        """The function, whose code is a part of the trials' keys."""
        return (self.plugin,)

    @property
    def objects(self) -> dict[str, Plugin]:
        """The function, if it exists in this process alone, by its display name."""
        return {} if self.plugin.locator else {self.plugin.name: self.plugin}

    def known_as(self, trials: Callable[[], Iterable[Settings]]) -> None:
        """Take the address under which a study's trials have the function; they are asked for only where it matters."""
        if self.plugin.older:
            self.plugin = self.plugin.known_as({settings.code[1] for settings in trials()})

    def objective(self, name: str) -> tuple[str, str | None]:  # noqa: ARG002 - a study has but one
        """Return the function's display name and the hash of its source."""
        return self.plugin.name, self.plugin.source

    def check_unchanged(self, study: str, needed: Iterable[Settings], spec: Mapping[str, Any]) -> None:
        """Refuse another function than the one that stored trials were made for.

        Args:
            study: the study's name.
            needed: the settings of the trials.
            spec: the study's, as it is stored.

        Raises:
            UsageError: it is another one, or its source has changed since.
        """
        for settings in needed:
            name, source = settings.code
            if name != self.plugin.name:
                raise UsageError(
                    f"study {study!r} is of objective {name!r}, not of {self.plugin.name!r}",
                    hint=f"name it again: --objective {name} (with its path)",
                )
            check_same(
                "objective",
                self.plugin,
                self.plugin.source,
                source,
                study=study,
                spec=spec,
            )
