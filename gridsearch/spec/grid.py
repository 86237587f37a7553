"""The grid: axes with their values, pairs, exclusions and conditions; gives the points in row-major order.

Between what was written (see `grammar` for the text) and the study, which adds the recipe and the seeds.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from gridsearch.errors import SpecError, nearest
from gridsearch.records.axis import identity
from gridsearch.spec.axes import AXES, SEED, find_axis
from gridsearch.spec.collector import ErrorCollector, InvalidValue, shortened
from gridsearch.spec.conditions import allowed
from gridsearch.spec.grammar import write_row, write_values
from gridsearch.spec.grid_builder import Entry, Written, assemble
from gridsearch.spec.grid_parts import Parts, merge, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsearch.records import Value


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One combination of values.

    Attributes:
        values: by axis, in the grid's order; only axes that exist at this point.
        inactive: the axes that a condition takes away from it.
    """

    values: Mapping[str, Value]
    inactive: tuple[str, ...] = ()


class Grid:
    """Axes with their values; immutable.

        Grid(lr=[.01, .001], batch="10..50:10")
        Grid({"lr,batch": [(.01, 100), (.001, 20)], "model.width": [1, 2]}, exclude="lr=.01 model.width=2")

    A text is read as the command line reads it; a list holds plain values as they are: "1e5" in a list is that str,
    and 1e5 the number.  Numbers of numpy and torch, Decimals and paths become plain; an Enum is refused.

    Args:
        axes: values by axis; several names joined by commas are paired.  For names that Python does not take
            as keywords ("model.width").
        exclude: points to leave out ("lr=.01 batch=10"), one text or several.
        when: conditions on which an axis exists ("momentum: optimizer=sgd"), one text or several.
        kw_axes: more axes; `seed` gives the replicates.

    Raises:
        SpecError: everything that is wrong with it, at once.
    """

    __slots__ = ("_parts",)
    _parts: Parts

    def __init__(
        self,
        axes: Mapping[str, Any] | None = None,
        *,
        exclude: str | Sequence[str] = (),
        when: str | Sequence[str] = (),
        **kw_axes: Any,
    ) -> None:
        if axes is not None and not isinstance(axes, Mapping):
            raise SpecError([f"grid: takes a mapping of axes to values, not {type(axes).__name__}"])
        parts = _from_python(
            [*(axes or {}).items(), *kw_axes.items()], exclude=exclude, when=when, free=False
        )
        object.__setattr__(self, "_parts", parts)

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """Make a grid of parts that were checked."""
        grid = object.__new__(cls)
        object.__setattr__(grid, "_parts", parts)
        return grid

    @classmethod
    def parse(cls, words: Sequence[str], *, exclude: Sequence[str] = (), when: Sequence[str] = ()) -> Self:
        """Read a grid in the command line's grammar.

        Args:
            words: "axis=values" each, as they follow `--grid`.
            exclude: texts of `--exclude`.
            when: texts of `--when`.

        Raises:
            SpecError: everything that is wrong, with its place; no words at all.
        """
        problems = ErrorCollector()
        if not words:
            problems.add("--grid", "names no axis")
        entries = word_entries(words, problems)
        parts = assemble(
            entries,
            exclude=rule_texts("--exclude", exclude),
            when=rule_texts("--when", when),
            problems=problems,
        )
        problems.check()
        return cls.of(parts)

    @classmethod
    def of_params(cls, axes: Mapping[str, Any], **rules: Any) -> Self:
        """Make a grid of a function's params: any names and any plain values; else as `Grid` itself.

        Args:
            axes: values by param; several names joined by commas are paired, `seed` gives the replicates.
            rules: `exclude` and `when`, as `Grid` takes them.

        Raises:
            SpecError: everything that is wrong with it, at once.
        """
        return cls.of(_from_python(list(axes.items()), free=True, **rules))

    @property
    def parts(self) -> Parts:
        """What the grid consists of."""
        return self._parts

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, in order of first mention; `seed` is none of them."""
        return tuple(name for group in self._parts.groups for name in group.names)

    @property
    def values(self) -> dict[str, tuple[Value, ...]]:
        """The values of each axis."""
        return self._parts.values()

    @property
    def size(self) -> int:
        """The number of points before exclusions and conditions: the product of the axes' lengths."""
        return size_of(self._parts.groups)

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The replicates that a `seed` axis asks for."""
        return self._parts.seeds

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks unintended, one line each."""
        return self._parts.warnings

    def points(self, fixed: Mapping[str, Value] | None = None) -> Iterator[GridPoint]:
        """Give the points, the last axis varying fastest, each once.

        Args:
            fixed: what the recipe says, for conditions on axes that the grid lacks; its defaults, if None.
        """
        return (point for point, kept in self._survey(fixed or {}) if kept)

    def excluded(self, fixed: Mapping[str, Value] | None = None) -> int:
        """Return how many points the exclusions leave out."""
        return sum(not kept for _, kept in self._survey(fixed or {})) if self._parts.exclusions else 0

    def survey(self, fixed: Mapping[str, Value] | None = None) -> tuple[list[GridPoint], int]:
        """Return the points, and how many the exclusions leave out, in one pass."""
        points = []
        excluded = 0
        for point, kept in self._survey(fixed or {}):
            if kept:
                points.append(point)
            else:
                excluded += 1
        return points, excluded

    def merged(self, other: Grid) -> Grid:
        """Return a grid with the axes and rules of both; the other's axes replace this one's of that name.

        Exclusions of values that are replaced are dropped, with a warning.

        Raises:
            SpecError: together they have too many points.
        """
        try:
            return Grid.of(merge(self._parts, other._parts))
        except InvalidValue as wrong:
            raise SpecError([str(wrong)]) from None

    def words(self) -> tuple[str, ...]:
        """Return the canonical text of the axes, a word each, as `parse` reads them."""
        words = []
        for group in self._parts.groups:
            axes = [find_axis(name, free=self._parts.free) for name in group.names]
            if len(axes) == 1:
                text = write_values(axes[0], [row[0] for row in group.rows])
            else:
                text = ",".join(write_row(axes, row) for row in group.rows)
            words.append(f"{','.join(group.names)}={text}")
        if self.seeds is not None:
            words.append(f"{SEED}={write_values(AXES[SEED], self.seeds)}")
        return tuple(words)

    def arguments(self) -> tuple[str, ...]:
        """Return the command line's arguments that give this grid again."""
        words = self.words()
        rules = [("--exclude", str(rule)) for rule in self._parts.exclusions]
        rules += [("--when", str(rule)) for rule in self._parts.conditions]
        return (*(("--grid", *words) if words else ()), *itertools.chain.from_iterable(rules))

    def to_json(self) -> dict[str, list[str]]:
        """Return a JSON-able mapping that `from_json` reads back."""
        return {
            "axes": list(self.words()),
            "exclude": [str(rule) for rule in self._parts.exclusions],
            "when": [str(rule) for rule in self._parts.conditions],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[str]], *, free: bool = False) -> Self:
        """Read what `to_json` wrote; `free` says that the axes are params of a function.

        Raises:
            SpecError: it was not written by this version's `to_json`.
        """
        problems = ErrorCollector()
        parts = assemble(
            word_entries(data["axes"], problems),
            exclude=rule_texts("--exclude", data["exclude"]),
            when=rule_texts("--when", data["when"]),
            free=free,
            problems=problems,
        )
        problems.check()
        return cls.of(parts)

    def __str__(self) -> str:
        return shlex.join(self.arguments())

    def __repr__(self) -> str:
        return f"Grid({shortened(str(self))})"

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, Grid) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Grid is immutable: {name} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return Grid.of, (self._parts,)

    def _identity(self) -> tuple[object, ...]:
        # By text: equal values of different type (1 and True) would pass for the same grid.
        return self.words(), self._parts.exclusions, self._parts.conditions

    def _survey(self, fixed: Mapping[str, Value]) -> Iterator[tuple[GridPoint, bool]]:
        """Give every different point, and whether no exclusion leaves it out."""
        names = self.axes
        exclusions = [allowed(rule.terms) for rule in self._parts.exclusions]
        decide = self._conditions(fixed)
        seen: set[tuple[object, ...]] = set()
        for rows in itertools.product(*(group.rows for group in self._parts.groups)):
            values = dict(zip(names, itertools.chain.from_iterable(rows), strict=True))
            inactive: tuple[str, ...] = ()
            if decide:
                gone = set[str]()
                for axis, terms in decide:
                    if not all(name not in gone and identity(values[name]) in there for name, there in terms):
                        gone.add(axis)
                if gone:
                    inactive = tuple(name for name in names if name in gone)
                    values = {name: value for name, value in values.items() if name not in gone}
                    # Points that differ in nothing but what they do not have are one point.
                    this = (inactive, *map(identity, values.values()))
                    if this in seen:
                        continue
                    seen.add(this)
            kept = not any(
                all(name in values and identity(values[name]) in there for name, there in terms)
                for terms in exclusions
            )
            yield GridPoint(values, inactive), kept

    def _default(self, name: str) -> Value:
        return find_axis(name, free=self._parts.free).default

    def _conditions(
        self, fixed: Mapping[str, Value]
    ) -> list[tuple[str, list[tuple[str, frozenset[tuple[bool, Value]]]]]]:
        """Return, in order, each conditional axis with its terms on axes of the grid.

        A term on an axis that the grid lacks is the same for all points: one that holds is left out here, one
        that does not is kept as a term that no value fulfils.
        """
        names = set(self.axes)
        decide = []
        for condition in self._parts.conditions:
            if condition.axis not in names:
                continue
            terms = []
            for name, there in allowed(condition.terms):
                if name in names:
                    terms.append((name, there))
                elif identity(fixed[name] if name in fixed else self._default(name)) not in there:
                    terms.append((condition.axis, frozenset()))
            if terms:
                decide.append((condition.axis, terms))
        return decide


def _from_python(
    axes: Sequence[tuple[str, Any]],
    *,
    free: bool,
    exclude: str | Sequence[str] = (),
    when: str | Sequence[str] = (),
) -> Parts:
    for name, _ in axes:
        if not isinstance(name, str):
            raise SpecError([f"grid: an axis is named by a text, not {name!r:.60}"])
    return assemble(
        [Entry(name, values, shortened(f"{name}={_repr(values)}"), as_given=True) for name, values in axes],
        exclude=[Written(text, shortened(f"exclude {text!r}")) for text in _several("exclude", exclude)],
        when=[Written(text, shortened(f"when {text!r}")) for text in _several("when", when)],
        free=free,
    )


def word_entries(words: Sequence[str], problems: ErrorCollector) -> list[Entry]:
    """Cut the words that follow `--grid` at their `=`, and note those that have none."""
    entries = []
    for word in words:
        names, equals, values = word.partition("=")
        place = f"--grid {shortened(word)}"
        if equals:
            entries.append(Entry(names, values, place))
        else:
            known = [name for name, axis in AXES.items() if axis.scope == "grid"]
            problems.add(
                place, f"is not AXIS=VALUES{nearest(word, known)}" if word not in known else "has no values"
            )
    return entries


def rule_texts(option: str, texts: Sequence[str]) -> list[Written]:
    """Give the texts of `--exclude` or `--when` their places."""
    return [Written(text, f"{option} {shortened(text)!r}") for text in texts]


def _several(name: str, texts: str | Sequence[str]) -> Sequence[str]:
    if not isinstance(texts, str | Sequence):
        raise SpecError([f"{name} takes one text or several, not {type(texts).__name__}"])
    return [texts] if isinstance(texts, str) else texts


def _repr(values: Any) -> str:
    try:
        return repr(values)
    except Exception:  # noqa: BLE001 - whole numbers of thousands of digits, and somebody's own classes
        return f"a {type(values).__name__}"
