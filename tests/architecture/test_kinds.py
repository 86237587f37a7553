"""Image studies and function studies are two kinds behind one protocol; a third could stand beside them."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gridsearch.planning import WorkQueue, group_trials, packs_of, relative_cost
from gridsearch.records import (
    Settings,
    StepEnded,
    TrialDraft,
    TrialFinished,
    TrialState,
    trial_key,
    trial_keys,
)
from gridsearch.records.settings import register
from gridsearch.records.study_kinds import FUNCTION, KINDS, StudyKind

ROOT = Path(__file__).parents[2] / "gridsearch"

MAY_ASK = {
    "records/function_settings.py": "is one",
    "spec/study_options.py": "types the options of each kind",
    "spec/expand.py": "has a builder of points for each kind",
    "service/prepare/preparation.py": "has a preparation for each kind",
    "service/prepare/functions.py": "is one of them",
    "service/prepare/named_code.py": "gives each kind its code that a worker's command named",
    "executors/worker.py": "has a trainer for each kind",
    "executors/run_files.py": "sends the code of each kind to other machines",
    "api/given.py": "takes the objects of each kind",
}
"""The modules in which it is asked which kind a study is."""


def questions(tree: ast.AST) -> Iterator[int]:
    """Give the lines in which a module asks which kind a study is."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="gridsearch.records.study_kinds", names=names):
                if any(alias.name in ("FUNCTION", "KINDS") for alias in names):
                    yield node.lineno
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
                if {"ImageSettings", "FunctionSettings"} & {
                    n.id for n in ast.walk(kinds) if isinstance(n, ast.Name)
                }:
                    yield node.lineno
            case ast.Compare():
                sides = [node.left, *node.comparators]
                if any(isinstance(s, ast.Name) and s.id == "IMAGES" for s in sides):
                    yield node.lineno
                if any(isinstance(s, ast.Constant) and s.value is None for s in sides) and any(
                    isinstance(s, ast.Attribute) and s.attr in ("objective", "ranked_by") for s in sides
                ):
                    yield node.lineno


def test_few_modules_ask_which_kind_a_study_is():
    asking = {
        str(path.relative_to(ROOT)): lines
        for path in sorted(ROOT.rglob("*.py"))
        if (lines := list(questions(ast.parse(path.read_text()))))
    }
    others = {name: lines for name, lines in asking.items() if name not in MAY_ASK}
    assert not others, (
        "ask what the kind can do (`StudyKind`), or give it to one of those that have a part for each"
    )
    assert set(MAY_ASK) == set(asking)


PLAY = StudyKind(
    name="play",
    options=("game",),
    code="game",
    noun="a game",
    unit="move",
    work="playing",
    preposition="of",
    differ="of different games",
    alike="same game, same rules",
    does="plays a game",
    free_axes=True,
    packs=False,
    classifies=False,
)


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class PlaySettings(Settings):
    """Settings of a third kind, known to no module of the program."""

    kind: ClassVar[StudyKind] = PLAY
    mark: ClassVar[str] = "game"

    game: str
    rules: Mapping[str, Any] = field(default_factory=dict)
    code_version: str | None = None

    @property
    def length(self):
        return None

    @property
    def code(self):
        return self.game, None

    @property
    def uses(self):
        return (("game", self.game),)

    def get(self, axis, default=None):
        return self.rules.get(axis, default)

    def flat(self):
        return {"game": self.game, **self.rules}

    def changed(self, axis, value):
        return replace(self, rules={**self.rules, axis: value})

    def versions(self):
        return {}

    facts = flat

    def scored_on(self):
        return (self.game,)

    peers = scored_on

    def shape(self):
        return (("game", (False, self.game)),)

    def to_json(self):
        return {"game": self.game, "rules": dict(self.rules)}

    key_content = to_json


def drafts() -> list[TrialDraft]:
    points = [
        PlaySettings(game="go", rules={"komi": komi, "board": board})
        for komi in (0.5, 6.5)
        for board in (9, 19)
    ]
    return [
        TrialDraft(key=key, seed=seed, settings=point, axes=("komi", "board"))
        for point in points
        for seed, key in enumerate(trial_keys(point, (0, 1)))
    ]


@pytest.fixture
def played(tmp_path):
    """A study of the third kind in a store, with a result for each trial."""
    from gridsearch.store import RunnerIdentity, StudyDraft, open_store

    asked = drafts()
    study = StudyDraft(
        name="go", dataset="go", metric="won", direction="maximize", axes=("komi", "board"), command="play"
    )
    with open_store(f"sqlite:///{tmp_path}/s.db", home=tmp_path, create=True) as store:
        added = store.add(study, asked)
        for trial in store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60):
            won = trial.settings.get("komi") / trial.settings.get("board") + 0.01 * trial.seed
            of = {"trial": trial.id, "attempt": trial.attempt}
            store.record_epochs(
                [StepEnded(**of, step=n, metrics={"won": won / n}, seconds=1.0) for n in (1, 2)]
            )
            metrics = {"won": won, "moves": 80.0}
            store.finish(
                TrialFinished(**of, state=TrialState.COMPLETE, epochs=2, seconds=2.0, metrics=metrics)
            )
        assert store.add(study, drafts()).reused == len(asked), "nothing is played twice"
        yield store.study_data("go")


def test_a_third_kind_is_stored_found_again_ranked_and_reported(played):
    from gridsearch import reporting

    assert {t.key: t.settings for t in played.trials} == {draft.key: draft.settings for draft in drafts()}
    assert (played.kind, played.axes) == (PLAY, ("komi", "board"))
    ranking = reporting.rank(played)
    assert [dict(p.params) for p in ranking.points[:2]] == [
        {"komi": 6.5, "board": 9},
        {"komi": 6.5, "board": 19},
    ]
    assert not ranking.by_train
    content = reporting.report_json(played, ranking=ranking)
    assert (content["best"]["params"], content["objective"]) == ({"komi": 6.5, "board": 9}, None)
    assert list(reporting.epochs_frame(played)["won"]) == [
        row.metrics["won"] for number in sorted(played.steps) for row in played.steps[number]
    ]


def test_a_third_kind_is_planned_and_pruned_like_others():
    from gridsearch.store.pruners import PruningStudy

    asked = drafts()
    assert len(group_trials(asked, lambda draft: draft.settings)) == 1
    queue = WorkQueue(workers=2, lanes=lambda *_: 1, cost=lambda draft: relative_cost(draft.settings))
    queue.fill(asked)
    assert sorted(draft.key for pack in packs_of(queue) for draft in pack) == sorted(d.key for d in asked)
    assert PruningStudy("median", name="go", direction="maximize") is not None
    assert PLAY not in KINDS
    assert FUNCTION.free_axes
    assert Settings.from_json(asked[0].settings.to_json()) == asked[0].settings
    assert trial_key(asked[0].settings, 0) == asked[0].key
