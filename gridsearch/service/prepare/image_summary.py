"""What a run and a plan say of the images before anything is trained: one line, what was done, what is in doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gridsearch.plugins.shape_arguments import in_words
from gridsearch.service.prepare.catalog import models_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gridsearch.plugins import ImageData
    from gridsearch.records import TrialDraft
    from gridsearch.service.prepare.catalog import Catalog
    from gridsearch.service.prepare.preparation import Prepared


def tell(prepared: Prepared, say: Callable[[str], None]) -> None:
    """Say in one line what the images were understood as, and then what was done to them."""
    for line in (prepared.described, *(prepared.images.notes if prepared.images is not None else ())):
        if line:
            say(line)


def with_doubts(prepared: Prepared) -> Prepared:
    """Return the trials with what puts results on their images in doubt among the warnings."""
    doubts = dict.fromkeys(doubt for facts in prepared.seen for doubt in facts.doubts)
    return replace(prepared, warnings=(*prepared.warnings, *doubts))


def passed(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> Iterator[str]:
    """Say what each model gets of the data's shape under a name that is not the contract's."""
    built = models_of(d.settings for d in drafts)
    told = {
        f"{name} gets {words}": None
        for name, options in built
        if (words := in_words(catalog.passed(name, dict(options), images)))
    }
    yield from (f"{line}, as the images are" for line in told)
