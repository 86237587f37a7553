"""The order in which a run trains decides which points and packs go first, and nothing about what trains."""

from __future__ import annotations

import itertools

from gridsearch.planning import WorkQueue, packs_of, rank_of, relative_cost
from gridsearch.records import ImageSettings, Trial, TrialState
from gridsearch.service.prepare.options import RunOptions
from gridsearch.service.run.sizing import settled_packs
from gridsearch.spec.spread import spread

AXES = {"batch": (10, 20, 40), "lr": (0.1, 0.01, 0.001, 0.0001), "epochs": (1, 3)}


def trials_of(seeds=1):
    points = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
    return [
        Trial(
            id=i,
            number=i,
            key=f"{point}{seed}",
            seed=seed,
            settings=ImageSettings(dataset="digits", **point),
            params=point,
            state=TrialState.WAITING,
        )
        for i, (point, seed) in enumerate(itertools.product(points, range(seeds)))
    ]


def cost(trial):
    return relative_cost(trial.settings)


def packs(trials, order, lanes=4, workers=1, known=None):
    rank = rank_of(order, lambda: known or trials, cost=cost)
    queue = WorkQueue[Trial](workers=workers, lanes=lambda *_: lanes, cost=cost, rank=rank)
    queue.fill(trials)
    return packs_of(queue)


def test_spread_takes_the_points_of_an_even_order_and_fills_packs_with_those_that_may_share_them():
    trials = trials_of()
    order = [trials[i] for i in spread([t.params for t in trials])]
    made = packs(trials, "spread", lanes=1)
    assert [pack[0] for pack in made] == order
    made = packs(trials, "spread", lanes=4)
    assert made[0][0] is order[0]
    assert made[0] == tuple(t for t in order if t.params["batch"] == order[0].params["batch"])[:4]
    assert [len({t.params["batch"] for t in pack}) for pack in made] == [1] * len(made)
    assert {pack[0].params["batch"] for pack in made[:3]} == set(AXES["batch"])  # no group waits for another


def test_spread_gives_every_point_its_first_seed_before_any_its_second():
    trials = trials_of(seeds=2)
    made = [trial for pack in packs(trials, "spread", lanes=1) for trial in pack]
    assert [t.seed for t in made] == [0] * 24 + [1] * 24
    assert [t.params for t in made[:24]] == [t.params for t in made[24:]]


def test_a_run_that_goes_on_keeps_the_order_it_began_with():
    trials = trials_of()
    whole = [pack[0] for pack in packs(trials, "spread", lanes=1)]
    rest = [t for t in trials if t not in whole[:9]]
    assert [pack[0] for pack in packs(rest, "spread", lanes=1, known=trials)] == whole[9:]


def test_cheap_first_takes_the_cheapest_by_the_costs_that_the_plan_has():
    made = [trial for pack in packs(trials_of(), "cheap-first", lanes=1) for trial in pack]
    costs = [cost(t) for t in made]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_given_lets_the_longest_packs_go_first_as_ever():
    trials = trials_of()
    plain = WorkQueue[Trial](workers=1, lanes=lambda *_: 4, cost=cost)
    plain.fill(trials)
    assert packs(trials, "given") == packs_of(plain)
    costs = [sum(map(cost, pack)) for pack in packs(trials, "given")]
    assert costs == sorted(costs, reverse=True)


def test_settled_packs_are_the_same_in_every_order_and_only_go_in_another():
    trials = trials_of()
    options = RunOptions(lanes=4, workers=1)
    given = settled_packs(trials, options)
    rank = rank_of("spread", lambda: trials, cost=cost)
    other = settled_packs(trials, options, rank)
    assert sorted(given) == sorted(other)
    assert given != other
    places = {t.key: rank(t) for t in trials}
    firsts = [min(places[key] for key in pack) for pack in other]
    assert firsts == sorted(firsts)
