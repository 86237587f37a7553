"""What a run and a plan say about the images before anything is trained: a summary, notes and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.plugins.shape_arguments import in_words
from gridsearch.service.prepare.catalog import models_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gridsearch.plugins import ImageData
    from gridsearch.records import DataFacts, TrialDraft
    from gridsearch.service.prepare.catalog import Catalog


def summary(described: str | None, images: ImageData | None) -> Iterator[str]:
    """Yield one line on what the images were understood as, then those on what was done to them."""
    if described:
        yield described
    yield from images.notes if images is not None else ()


def image_warnings(seen: Iterable[DataFacts]) -> tuple[str, ...]:
    """Return what makes results on these images doubtful, each once."""
    return tuple(dict.fromkeys(doubt for facts in seen for doubt in facts.doubts))


def renamed_arguments(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> Iterator[str]:
    """Yield what each model gets of the data's shape under a name that is not the protocol's."""
    built = models_of(d.settings for d in drafts)
    lines = {
        f"{name} gets {words}": None
        for name, options in built
        if (words := in_words(catalog.passed(name, dict(options), images)))
    }
    yield from (f"{line}, as the images are" for line in lines)
