"""Which trials keep their weights, decided as results come in, is what a look at all of them would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gridsearch.store.kept_weights import KeptWeights

VALUES = st.none() | st.sampled_from([0.1, 0.2, 0.3, 0.4, float("nan"), float("inf")])
RESULTS = st.lists(st.tuples(VALUES, st.booleans()), max_size=12)


@given(
    results=RESULTS,
    known=st.integers(0, 12),
    keep=st.integers(1, 4),
    direction=st.sampled_from(["maximize", "minimize"]),
)
def test_after_each_result_the_best_have_their_weights_and_no_others(results, known, keep, direction):
    sign = -1 if direction == "maximize" else 1

    def best(numbers):
        finite = [(v, n) for n in numbers if (v := results[n][0]) is not None and abs(v) < float("inf")]
        return sorted(finite, key=lambda each: (sign * each[0], each[1]))[:keep]

    before = range(min(known, len(results)))
    having = {n for _, n in best(before) if results[n][1]}
    kept = KeptWeights(best(before), having=having, direction=direction, keep=keep)
    for number in range(len(before), len(results)):
        value, weights = results[number]
        having |= {number} if weights else set()
        having.discard(kept.take(value, number, weights=weights))
        assert having == {n for _, n in best(range(number + 1)) if results[n][1]}
