"""What reporting reads: trials with their results, and the study that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridsearch.advice import Advice
from gridsearch.records.axis import Value
from gridsearch.records.image_facts import DataFacts, ages
from gridsearch.records.settings import Settings
from gridsearch.records.study_kinds import IMAGES, StudyKind
from gridsearch.records.trials import TrialState

SAMPLED_FROM = "sampled_from"
"""Where a study's spec keeps how many points the grid has of which it is a sample."""
_LONGEST = 160
"""Characters of the params in a trial's line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch of a trial as the store holds it; see `EpochEnded` for the units."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step of a function's trial as the store holds it; see `StepEnded`."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrialRecord:
    """A trial with its result.

    Attributes:
        value: the ranking metric (an accuracy as a fraction), None where there is no result.
        metrics: final metrics by name.
        epochs: the epochs trained so far; of a function, its steps.
        seconds: wall time, None while it has not ended.
        error: one line for a failed or diverged trial; of a pruned one, when it was ended.
        pruner: what ended a pruned trial ("median", "asha", "hyperband").
    """

    number: int
    key: str
    seed: int
    state: TrialState
    params: Mapping[str, Value]
    settings: Settings
    value: float | None
    metrics: Mapping[str, float]
    epochs: int
    seconds: float | None
    attempts: int
    error: str | None
    pruner: str | None = None

    def __repr__(self) -> str:
        """Return one line: its settings alone would fill a screen."""
        params = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        words = f"{params[:_LONGEST]}{'...' if len(params) > _LONGEST else ''}, seed={self.seed}"
        value = "" if self.value is None else f", value {self.value!r}"
        return f"<TrialRecord {self.number}: {words}; {self.state.value}{value}>"

    @property
    def stopped_early(self) -> bool:
        """Whether it is complete without all its epochs: it came to the end of its patience."""
        return stopped_early(self.state, self.epochs, self.settings)


def stopped_early(state: TrialState, epochs: int, settings: Settings) -> bool:
    """Whether a trial is complete without all its epochs: it came to the end of its patience.

    Args:
        state: how it ended.
        epochs: that it trained, or steps of a function.
        settings: the trial's.
    """
    return state is TrialState.COMPLETE and settings.length is not None and epochs < settings.length


def early_stop_words(epochs: int, settings: Settings) -> str:
    """Say why a trial stopped early; the arguments are `stopped_early`'s."""
    patience = settings.get("patience")
    since = f", no better since epoch {epochs - patience}" if isinstance(patience, int) else ""
    return f"stopped early{since}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which trials of a study are looked at, where not all of them are.

    Attributes:
        where: value by name that each of them has.
        words: the same as it is typed after --where.
        folder: a name for a folder of this part alone.
        trials: how many they are, of so many (`of`) in the whole study.
    """

    where: Mapping[str, Value]
    words: str
    folder: str
    trials: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyData:
    """A study as reporting sees it.

    Attributes:
        axes: the axes of all its grids and whatever else varies, in a stable order; the keys of `params`.
        dataset: display name of the dataset, or of the function.
        metric: "val_accuracy", or "train_accuracy" where nothing was held out; of a function, what its study says.
        direction: "maximize" or "minimize".
        own_metric: the metric that ranks the study itself, where `metric` is another that was asked for; else "".
        class_names: of the newest run's images; those of a trial says `classes_of`.
        commands: the command lines that made the study, oldest first.
        environment: versions and hardware of the newest run.
        epochs: the epoch rows by trial number, each in order.
        steps: likewise the steps of a function's trials.
        test: what `best` found on the test images, None before it has read them; see
            `reporting.evaluation.evaluate`.
        part: which trials are here, None where all are.
        facts: what is known of the images of its trials, by fingerprint.
        advice: what commands about it need, None where that is its name alone.
        spec: as it was last asked for, see `StudySpec.to_json`; empty where that is not known.
        id: the ledger's, which no other study of that store ever bears; 0 where that is not known.
    """

    name: str
    dataset: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    class_names: tuple[str, ...]
    commands: tuple[str, ...]
    environment: Mapping[str, str]
    epochs: Mapping[int, tuple[EpochRow, ...]]
    steps: Mapping[int, tuple[StepRow, ...]] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None
    part: Part | None = None
    facts: Mapping[str, DataFacts] = field(default_factory=dict)
    advice: Advice | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    own_metric: str = ""
    id: int = 0

    def __repr__(self) -> str:
        """Return one line: what it holds would fill many screens."""
        count = len(self.trials)
        return f"<StudyData {self.name!r}: {count:,} trial{'s' * (count != 1)}, {self.metric!r}>"

    @property
    def sample(self) -> tuple[int, int] | None:
        """How many points were asked for last, of how many of the grid; None where that was all of them."""
        count, of = self.spec.get("sample"), self.spec.get(SAMPLED_FROM)
        return None if count is None or of is None else (count, of)

    @property
    def again(self) -> Advice:
        """The commands about it."""
        return self.advice or Advice(study=self.name)

    @property
    def to_a_result(self) -> str:
        """What brings a study without a result to one; a trial that has diverged is not trained again."""
        if self.trials and all(trial.state is TrialState.DIVERGED for trial in self.trials):
            return "another run of these points would diverge again; run a grid with other values"
        return f"`{self.again.go_on()}` trains what is missing"

    @property
    def whole(self) -> bool:
        """Whether it is the study as it was made: all trials, ranked by its own metric."""
        return self.part is None and not self.own_metric

    @property
    def kind(self) -> StudyKind:
        """What it is of; of images where it has no trial."""
        return next((trial.settings.kind for trial in self.trials), IMAGES)

    def counts(self) -> dict[str, int]:
        """Return the number of trials in each state, all states present."""
        counts = {state.value: 0 for state in TrialState}
        for trial in self.trials:
            counts[trial.state.value] += 1
        return counts

    def classes_of(self, settings: Settings) -> tuple[str, ...]:
        """Return the class names of the images that a trial was trained on, by label.

        Nothing where the study is of an older version, which kept but those of the newest run, and its trials
        were trained on several: they are shown by number rather than by another's names.
        """
        if settings.data_fingerprint in self.facts:
            return self.facts[settings.data_fingerprint].class_names
        return () if self.facts else self.class_names

    def data_ages(self) -> dict[str, int]:
        """Return for each fingerprint how many sets of images were run on since, see `data.ages`."""
        return ages({t.number: t.settings for t in self.trials}, self.facts)
