"""From a refitted winner to its model card in Markdown: the page that goes with the model wherever it goes.

Names of classes, studies and settings come from users: what Markdown or HTML would take for markup is escaped.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.stats.evaluation import chosen_words, interval_words, reading_words
from gridsearch.reporting.words.text import printable, show_metric, show_param, show_params
from gridsearch.spec.words import Worded, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

DARK: Final = 0.35
"""Mean brightness below which images are light on dark; Fashion-MNIST has 0.29, MNIST 0.13."""

UNEVEN: Final = 0.02
"""Accuracy above balanced accuracy by which classes are recognised unevenly well."""

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|~&!])")
_HIDDEN = ("data_fingerprint", "model_source", "optimizer_source", "augment_source", "dataset")


def model_card(
    model: Mapping[str, Any], *, classes: Mapping[str, Any], ranked_by: str, cautions: Sequence[str]
) -> str:
    """Return the card.

    Args:
        model: the content of model.json.
        classes: the exported network's results class by class, see `evaluation.classes`.
        ranked_by: what the search was ranked by, in a sentence.
        cautions: what to know of how the model came about, in sentences.
    """
    given, test, mean = model["input"], model["test"], model["normalization"]["mean"]
    rows = [{"name": f"seed {one['seed']}", **one} for one in test["seeds"]]
    rows += [{"name": "mean", **test}] if len(rows) > 1 else []
    recipe = Worded(model["recipe"], words_of([model["recipe"]]))
    text = _template().render(
        model=model,
        given=given,
        test=test,
        point=show_params(test["params"]) if test.get("params") else "the winner",
        classes=classes,
        ranked_by=ranked_by,
        cautions=cautions,
        described=model["dataset"].get("described", ""),
        doubts=[f"{doubt[:1].upper()}{doubt[1:]}." for doubt in model["dataset"].get("doubts", ())],
        rows=rows,
        recipe=[(name, show_param(recipe, name)) for name in recipe if name not in _HIDDEN],
        colours={1: "grey", 3: "in colour"}.get(given["channels"], f"of {given['channels']} channels"),
        resized=(given["network_height"], given["network_width"]) != (given["height"], given["width"]),
        interval=interval_words(test),
        reading=reading_words(test),
        chosen=chosen_words(test),
        brightness=", ".join(f"{100 * m:.0f} %" for m in mean),
        dark=max(mean) < DARK,
        uneven=test["balanced_accuracy"] < test["accuracy"] - UNEVEN,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(text: object) -> str:
    """Return text that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", printable(str(text)))


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    text = resources.files("gridsearch.reporting").joinpath("templates", "card.md").read_text("utf-8")
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701 (Markdown)
    environment.filters["plain"] = plain
    environment.filters["share"] = lambda value: show_metric(value, "test_accuracy")
    return environment.from_string(text)
