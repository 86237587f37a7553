"""The forms of ``report`` that put things side by side: several studies, several trials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gridsearch import display
from gridsearch.cli import next_steps
from gridsearch.cli.argument_types import conditions
from gridsearch.errors import UsageError
from gridsearch.reporting.words.text import show_replicate
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries.studies import existing

if TYPE_CHECKING:
    import argparse


def studies(arguments: argparse.Namespace) -> int:
    """Compare studies."""
    from gridsearch import reporting
    from gridsearch.service.queries.comparisons import compare_studies

    places = Places.find(arguments.home, arguments.store)
    with existing(places) as store:
        made = compare_studies(
            store,
            arguments.study,
            where=conditions(arguments.where or ()),
            by=arguments.by,
            root=places.data,
        )
    if arguments.json:
        print(json.dumps({**made.comparison.to_json(), "page": str(made.page)}, allow_nan=False))
    else:
        out = display.console(no_color=arguments.no_color)
        out.print(reporting.print_comparison(made.comparison))
        out.print(f"comparison: {made.page}", soft_wrap=True)
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    for warning in made.warnings:
        err.warn(warning)
    if arguments.open:
        next_steps.open_page(err, made.page)
    return 0


def trials(arguments: argparse.Namespace) -> int:
    """Put trials side by side on a page, with their confusion matrices as figures.

    Raises:
        UsageError: trials of several studies, or a condition beside numbers.
    """
    from gridsearch.service.queries.comparisons import draw_trials

    if len(arguments.study) > 1 or arguments.where or arguments.by:
        raise UsageError("--trial takes one --study, and no --where or --by")
    places = Places.find(arguments.home, arguments.store)
    with existing(places) as store:
        made = draw_trials(store, arguments.study[0], arguments.trial, root=places.data)
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    for each in made.trials:
        if each.problem:
            err.warn(each.problem)
    if arguments.open:
        next_steps.open_page(err, made.page)
    if arguments.json:
        print(json.dumps(made.to_json(), allow_nan=False))
        return 0
    out = display.console(no_color=arguments.no_color)
    for each in made.trials:
        if each.accuracy is None:
            continue
        record = each.trial
        params = f"{display.params_text(record.params)} {show_replicate(record)}"
        words = f"trial {record.number}  {params}: {display.percent(each.accuracy)} of the validation images right"
        out.print(words, soft_wrap=True)
        for pair in each.pairs or ("no mistakes",):
            out.print(f"  {pair}", soft_wrap=True)
    for path in made.files:
        out.print(f"figure: {path}", soft_wrap=True)
    out.print(f"page: {made.page}", soft_wrap=True)
    return 0
