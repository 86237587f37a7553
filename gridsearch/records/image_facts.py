"""What is known of the images that trials were trained on, beside their fingerprint: it belongs to a trial's data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from gridsearch.records.image_settings import ImageSettings

if TYPE_CHECKING:
    from gridsearch.records.settings import Settings


UNEVEN = 1.25
"""Times the images of the smallest class that the largest one has where classes are called uneven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What some images are, whatever a study's other trials were trained on.

    Attributes:
        class_names: by label.
        train: number of training images by label; empty where an older store did not say.
        test: likewise of the test images, None where the dataset has none of its own.
        labels: SHA-256 of all labels: data of other options with the same labels is split alike.
        locator: where they were found last, absolute where it is a path; "" for an object from Python.
        described: the images in one line, as they were understood; "" where an older store did not say.
        doubts: what puts results on them in doubt, in sentences.
        seen: when a run last asked for them, in seconds since 1970; 0 where an older store did not say.
    """

    class_names: tuple[str, ...]
    train: tuple[int, ...] = ()
    test: tuple[int, ...] | None = None
    labels: str = ""
    locator: str = ""
    described: str = ""
    doubts: tuple[str, ...] = ()
    seen: float = 0.0

    @property
    def uneven(self) -> bool:
        """Whether the classes differ in their numbers of training images so far that it matters."""
        return bool(self.train) and max(self.train) >= UNEVEN * min(self.train)

    @property
    def constant(self) -> tuple[str, float] | None:
        """The class of which most training images are, and its share: what a constant answer gets right."""
        if not sum(self.train):
            return None
        label = max(range(len(self.train)), key=lambda i: self.train[i])
        return self.class_names[label], self.train[label] / sum(self.train)

    def to_json(self) -> str:
        """Return the text that `from_json` reads back."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        lists = ("class_names", "train", "test", "doubts")
        found = {
            name: None if (v := content[name]) is None else tuple(v) for name in lists if name in content
        }
        return cls(**content | found)


def ages(settings: Mapping[int, Settings], facts: Mapping[str, DataFacts]) -> dict[str, int]:
    """Return for each fingerprint how many sets of images were run on since its own: 0 for those of the newest run.

    Images of other options (another size) are one set with those that they were made from: they are split alike,
    and an accuracy on them can be compared.  Other images under the same options are another set.

    Args:
        settings: of the trials, by their numbers.
        facts: what is known of the images, by fingerprint.
    """
    versions: dict[tuple[str, str], list[str]] = {}
    newest: dict[str, tuple[float, int]] = {}
    for number, own in sorted(settings.items()):
        fingerprint = own.data_fingerprint
        labels = facts[fingerprint].labels if fingerprint in facts else ""
        options = json.dumps(dict(ImageSettings.of(own).data_options), sort_keys=True)
        seen = versions.setdefault((labels, options), [])
        if fingerprint not in seen:
            seen.append(fingerprint)
        seen_at = facts[fingerprint].seen if fingerprint in facts else 0.0
        newest[fingerprint] = seen_at, number
    sets: dict[tuple[str, int], set[str]] = {}
    for (labels, _), seen in versions.items():
        for place, fingerprint in enumerate(seen):
            sets.setdefault((labels, place), set()).add(fingerprint)
    in_order = sorted(sets.values(), key=lambda some: max(newest[f] for f in some), reverse=True)
    found: dict[str, int] = {}
    for age, some in enumerate(in_order):
        for fingerprint in some:
            found.setdefault(fingerprint, age)
    return found
