"""A sample lies evenly over its grid, grows where its number grows, and is of the grid as a set."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.errors import SpecError
from gridsearch.spec import build, expand_study
from gridsearch.spec.spread import Spread, spread


def grid(*sizes):
    axes = [[(f"a{axis}", level) for level in range(size)] for axis, size in enumerate(sizes)]
    return [dict(point) for point in itertools.product(*axes)]


sizes_of_grids = st.lists(st.integers(1, 7), min_size=1, max_size=5).filter(
    lambda sizes: math.prod(sizes) <= 400
)


@settings(max_examples=60, deadline=None)
@given(sizes_of_grids)
def test_every_level_is_within_one_of_its_even_share_at_every_size_and_every_point_comes_once(sizes):
    points = grid(*sizes)
    order = spread(points)
    assert sorted(order) == list(range(len(points)))
    counts = {(f"a{axis}", level): 0 for axis, size in enumerate(sizes) for level in range(size)}
    for taken, index in enumerate(order, start=1):
        for pair in points[index].items():
            counts[pair] += 1
        for (axis, _), count in counts.items():
            assert abs(count - taken / sizes[int(axis[1:])]) < 1


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 6, 7), (3, 3, 3, 3), (2, 3, 4, 6), (10, 10, 2)])
def test_pairs_of_levels_are_covered_far_better_than_by_chance(sizes):
    points = grid(*sizes)
    order = spread(points)
    missed = by_chance = 0.0
    for i, j in itertools.combinations(range(len(sizes)), 2):
        cells = sizes[i] * sizes[j]
        seen = {(points[k][f"a{i}"], points[k][f"a{j}"]) for k in order[: 2 * cells]}
        missed += 1 - len(seen) / cells
        by_chance += (1 - 1 / cells) ** (2 * cells)  # of a random sample
        assert len({(points[k][f"a{i}"], points[k][f"a{j}"]) for k in order[: 4 * cells]}) == cells
    assert missed <= by_chance if sizes == (2, 3, 4, 6) else missed <= by_chance / 3


@settings(max_examples=20, deadline=None)
@given(sizes_of_grids, st.randoms(use_true_random=False))
def test_neither_the_order_of_points_nor_that_of_axes_plays_a_part(sizes, chance):
    points = grid(*sizes)
    mixed = chance.sample(points, len(points))
    mixed = [dict(chance.sample(list(point.items()), len(point))) for point in mixed]
    assert [points[i] for i in spread(points)] == [mixed[i] for i in spread(mixed)]


def test_the_first_levels_of_an_axis_lie_far_apart():
    order = spread(grid(16))[:4]
    assert min(abs(a - b) for a, b in itertools.combinations(order, 2)) >= 3


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_in_a_grid_with_holes_the_levels_come_by_their_share_of_the_points(share):
    chance = random.Random(3)
    points = [point for point in grid(5, 4, 3, 2) if chance.random() > share]
    there = Counter(pair for point in points for pair in point.items())
    counts = Counter()
    for taken, index in enumerate(spread(points)[: len(points) // 2], start=1):
        counts.update(points[index].items())
        for pair, count in there.items():
            assert abs(counts[pair] - taken * count / len(points)) < 2.5


def test_paired_axes_count_as_one_and_axes_under_a_condition_by_where_they_are():
    pairs = [
        {"lr": lr, "batch": batch, "norm": norm} for lr, batch in ((1, 10), (2, 20), (3, 30)) for norm in "ab"
    ]
    first = [pairs[i] for i in spread(pairs)[:3]]
    assert {point["lr"] for point in first} == {1, 2, 3}
    conditional = [{"optimizer": "adam", "lr": lr} for lr in range(4)]
    conditional += [{"optimizer": "sgd", "lr": lr, "momentum": m} for lr in range(4) for m in (0, 0.5, 0.9)]
    taken = Counter(conditional[i]["optimizer"] for i in spread(conditional)[:8])
    assert taken == {"adam": 2, "sgd": 6}


def test_a_point_that_is_not_taken_counts_for_nothing():
    chosen = Spread(grid(2, 2))
    first = chosen.propose()
    second = chosen.propose()  # without take(): the next in line, whatever its levels
    assert first != second
    assert {chosen.propose(), chosen.propose()} | {first, second} == set(range(4))
    assert chosen.propose() is None


def points_of(sample, *words, resolve, **options):
    spec = build(words=words, options={"sample": sample, **options})
    expansion = expand_study(spec, resolve)
    return [
        tuple(draft.settings.get(axis) for axis in ("lr", "batch", "optimizer", "momentum"))
        for draft in expansion.drafts
    ], expansion


def test_a_larger_sample_holds_the_smaller_one_whatever_the_grid_is_made_of(resolver):
    words = ("lr=1e-4..1e-1:7log", "batch=16,32,64", "optimizer=adam,sgd", "momentum=0,.9")
    few, _ = points_of(9, *words, resolve=resolver)
    more, expansion = points_of(20, *words, resolve=resolver)
    assert len(set(few)) == 9
    assert set(few) < set(more)
    assert (expansion.points, expansion.sampled_from) == (20, 84)
    grid_order = [p for p in points_of(63, *words, resolve=resolver)[0] if p in more]
    assert more == grid_order  # adam has no momentum: 7 * 3 * (1 + 2) points


def test_a_sample_comes_of_what_exclusions_conditions_and_pairs_leave(resolver):
    rules = {"exclude": ["lr=.01 batch=10"], "when": ["momentum: optimizer=sgd"]}
    spec = build(
        words=["lr,batch=.01/10,.01/20,.1/10", "optimizer=adam,sgd", "momentum=0,.5,.9"],
        options={"sample": 6},
        **rules,
    )
    drafts = expand_study(spec, resolver).drafts
    assert len(drafts) == 6
    assert all((d.settings.get("lr"), d.settings.get("batch")) in {(0.01, 20), (0.1, 10)} for d in drafts)
    assert len({d.key for d in drafts}) == 6


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (0, "sample must be a whole number of at least 1, not 0"),
        ("1.5", "sample must be a whole number of at least 1, not 1.5"),
        ("many", "sample must be a whole number of at least 1, not many"),
        (7, "sample 7: the grid has 6 points, and no more can be sampled"),
    ],
)
def test_a_sample_of_no_points_or_of_more_than_there_are_is_refused(sample, words, resolver):
    with pytest.raises(SpecError, match=words):
        expand_study(build(words=["lr=.1,.2,.3", "batch=1,2"], options={"sample": sample}), resolver)


def test_an_unknown_order_and_an_unknown_finding_are_refused_with_the_nearest():
    with pytest.raises(SpecError, match="unknown order 'spraed'; did you mean 'spread'"):
        build(words=["lr=.1"], options={"order": "spraed"})
    with pytest.raises(SpecError, match="unknown finding 'edge-of-axes'; did you mean 'edge-of-axis'"):
        build(words=["lr=.1"], options={"ignore": "GS102, edge-of-axes"})
    assert build(words=["lr=.1"], options={"ignore": "gs102,edge-of-axis"}).ignore == ("GS102", "GS101")
