"""Many cases of `random_plans`, in processes of their own, so that one that crashes is known by its number.

    python -m tests.training.plan_fuzzer FIRST COUNT LOG

A line of LOG, as JSON, says of each case how it went: "planned", "stacked", ... where it agrees with plain loops, else
"wrong: ...", "error: ..." or "crash: ...".  Printed at the end is how often each word came.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

BAD = ("wrong", "error", "crash")
_AT_A_TIME = 40  # cases of a process
_SECONDS = 600.0  # of a case, then it hangs


def child(first: int, count: int) -> None:
    """Go through some cases and print a line for each before and after."""
    import torch

    from tests.training import held_plans, random_plans

    faulthandler.enable()
    faulthandler.dump_traceback_later(_SECONDS, exit=True)
    torch.set_num_threads(1)
    for number in range(first, first + count):
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        began, case = time.perf_counter(), random_plans.draw(number)
        try:
            said = held_plans.hold(case)
        except AssertionError as error:
            said = f"wrong: {error}"
        except Exception:
            said = f"error: {traceback.format_exc()[-1500:]}"
        row = {
            "number": number,
            "said": said,
            "dtype": case.settings[0].dtype,
            "seconds": time.perf_counter() - began,
        }
        print(json.dumps(row), flush=True)


def main(first: int, count: int, log: Path) -> None:
    """Go through the cases and write what came of them."""
    end, words = first + count, collections.Counter[str]()
    while first < end:
        here = min(_AT_A_TIME, end - first)
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, "child", str(first), str(here)],
            capture_output=True,
            text=True,
            check=False,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        first += len(rows)
        if len(rows) < here:
            rows.append({"number": first, "said": f"crash: {done.returncode}: {done.stderr[-3000:]}"})
            first += 1
        with log.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        words.update(row["said"].split(":")[0] for row in rows)
    print(dict(words))


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
