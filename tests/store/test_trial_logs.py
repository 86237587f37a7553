"""A log holds the first and the last of what was written, and says how much it leaves out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.store import Home, trial_logs

FIRST, LAST = 200, 100


@given(
    st.lists(st.text(st.sampled_from("abé\n"), max_size=150), min_size=1, max_size=40),
    st.integers(1, 400),
)
def test_a_log_has_its_beginning_and_its_end_and_counts_what_is_left_out(texts, more):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(trial_logs, "FIRST", FIRST)
        patch.setattr(trial_logs, "LAST", LAST)
        path = Path(folder) / "log"
        for text in [*texts, "x" * more]:
            trial_logs.append(path, text)
        whole, kept = ("".join(texts) + "x" * more).encode(), path.read_bytes()
    kept.decode()
    assert len(kept) <= FIRST + 2 * LAST + 64 + 400
    found = re.search(rb"\n\[(\d+) bytes are left out here\]\n", kept)
    if found is None:
        assert kept == whole
        return
    first, last = kept[: found.start()], kept[found.end() :]
    assert whole.startswith(first)
    assert whole.endswith(last)
    # The newline at which the log was cut stands at the mark's beginning; halves of characters are left out too.
    assert 0 <= len(whole) - len(first) - len(last) - int(found[1]) <= 1
    assert len(last) > 0


def test_a_model_that_prints_80_megabytes_costs_no_more_than_the_first_and_last(tmp_path):
    home = Home(tmp_path)
    line = "x" * 9_999 + "\n"
    home.append_log("s", 0, "the first line\n")
    for _ in range(80):
        home.append_log("s", 0, line * 100)
    home.append_log("s", 0, "the last line\n")
    content = home.log("s", 0).read_text()
    assert home.size("s") <= trial_logs.FIRST + 3 * trial_logs.LAST + 1000
    assert content.startswith("the first line\nxxx")
    assert content.endswith("x\nthe last line\n")
    (left_out,) = re.findall(r"\[(\d+) bytes are left out here\]", content)
    assert int(left_out) > 75e6
