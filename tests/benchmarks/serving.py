"""What `gridsearch serve` costs a run: the same grid with nobody looking on, and with a reader of the live pages.

Pairs of the same run on digits in alternating order.  The reader asks what a browser asks that has the list of studies
and the study's page open: how far it is every three seconds, and the page again when it has changed.  Compared are
processor times, of the runner with its workers and of the server: on a machine whose cores are all training, the
server's is what a run can lose.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measure import Spread, write
from tests.benchmarks.polling import begin, run, used

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAUSE = 3.0
"""Seconds between two questions of a page, as in `live.js`."""


@dataclass
class Read:
    """What the reader asked for, and what answering took."""

    strips: int = 0
    pages: int = 0
    processor_seconds: float = 0.0
    wall_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@contextmanager
def read(study: str) -> Iterator[Read]:
    """Serve, and read the study's page and the list of studies for as long as the block takes."""
    found, stop = Read(), threading.Event()
    process, url = begin("serve")
    shown = ""

    def ask() -> None:
        nonlocal shown
        try:
            _get(f"{url}/")
            now = _get(f"{url}/study/{study}/now")
            found.strips += 1
            if _mark(now, "data-token") != shown:
                shown = _mark(_get(f"{url}/study/{study}/"), "data-live")
                found.pages += 1
        except urllib.error.HTTPError as error:
            if error.code != 404:  # the study is not there yet
                found.problems.append(str(error))
        except OSError as error:
            found.problems.append(str(error))

    def keep_asking() -> None:
        ask()
        while not stop.wait(PAUSE):
            ask()

    _get(f"{url}/")  # what the server loads once is loaded
    reader = threading.Thread(target=keep_asking)
    reader.start()
    before, began = used(process), time.perf_counter()
    try:
        yield found
        found.processor_seconds = used(process) - before
        found.wall_seconds = time.perf_counter() - began
    finally:
        stop.set()
        reader.join()
        process.terminate()
        process.wait()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _mark(text: str, attribute: str) -> str:
    return text.partition(f'{attribute}="')[2].partition('"')[0]


def processor_seconds(study: str, epochs: int) -> float:
    """Run the grid; return the processor seconds of the runner and its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(study, epochs)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sentence(figures: Mapping[str, Any]) -> str:
    """Return what docs/page.md says of it."""
    ratio, share = figures["looked at / alone"], figures["server"]
    return (
        f"16 trials of a LeNet on digits took {ratio['median']:.2f} times as much processor time while a browser showed these "
        f"pages ({ratio['least']:.2f} to {ratio['most']:.2f}); the server took {share['median']:.1f} seconds of one core per "
        f"minute ({share['least']:.1f} to {share['most']:.1f}; n={share['n']}, `python -m tests.benchmarks.serving`)."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args(arguments)
    alone, looked_at, server, strips, pages = [], [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        places = {"GRIDSEARCH_HOME": f"{folder}/home", "GRIDSEARCH_CACHE": f"{folder}/cache"}
        os.environ |= places
        run("first", 1)  # there is a store to look at, and the packs' sizes are known
        for pair in range(options.pairs):
            for look in (False, True) if pair % 2 == 0 else (True, False):
                if not look:
                    alone.append(processor_seconds(f"alone{pair}", options.epochs))
                    continue
                with read(f"read{pair}") as found:
                    looked_at.append(processor_seconds(f"read{pair}", options.epochs))
                assert not found.problems, found.problems
                server.append(60 * found.processor_seconds / found.wall_seconds)
                strips, pages = strips + found.strips, pages + found.pages
            print(
                f"pair {pair}: {alone[-1]:.1f} s, read {looked_at[-1]:.1f} s, server {server[-1]:.1f} s/min",
                flush=True,
            )
    ratios = [read / quiet for read, quiet in zip(looked_at, alone, strict=True)]
    figures = {
        "trials": 16,
        "epochs": options.epochs,
        "seconds between questions": PAUSE,
        "questions": strips,
        "pages made": pages,
        "alone": Spread.of(alone, "s of processor time"),
        "looked at": Spread.of(looked_at, "s of processor time"),
        "looked at / alone": Spread.of(ratios, "times"),
        "server": Spread.of(server, "s of processor time a minute"),
    }
    write("serving", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
