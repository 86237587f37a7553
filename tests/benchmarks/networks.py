"""Images per second of many networks: a plain loop, single lanes, packs, and what `--lanes auto` chooses.

    python -m tests.benchmarks.networks [--others] [--only NAME:BATCH ...] [--name NAME] [--starts N]
                                        [--rounds N] [--seconds S] [--processes N] [--processor-time] [--keep]

Eight trials that differ in lr, on as many one-threaded processes as there are cores (two).  For each row of
`network_rows`, ways take turns for some rounds, each in processes of its own, in all of them at once, for a second or
more of whole epochs with their evaluation; start-up and the first epoch do not count.  The plain loop is torch's own
Adam on images that are resident as floats, channels_last.  `auto` is what a worker's own measurement chooses; it is
held against the best of all that were tried.  A process keeps the luck of how its memory lies (some percent, for a
LeNet at batch 200 and more): with `--starts` each way gets new processes so many times.  Where the processor multiplies
bfloat16, single lanes and auto's choice are measured with `dtype=bfloat16` too.  The matrix rate is that of the faster
library for products that torch brings.  Pixels are noise: the arithmetic does not depend on them.

All rows take 25 minutes and are written to results/networks.json.  `--others` measures networks as many people write
them instead, into results/other_networks.json.  With `--only` rows are printed alone, and with
`--keep` take their place in the file; measuring on one core wants `--processes 1`.  Where others use the cores, too,
ratios by `--processor-time` vary less: of a process with one thread it is the wall time of a core of its own, about.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from gridsearch.executors.local import worker_environment
from tests.benchmarks.arithmetic import matrix_rates, model_flops
from tests.benchmarks.measure import RESULTS, Spread, multiplies_bf16, write
from tests.benchmarks.network_rows import OTHERS, ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LANES = (1, 2, 4)
"""Numbers of lanes that are tried, beside auto's choice; two workers have four of eight trials each."""

EPOCH = 20e9
"""FLOPs of an epoch, about: a third of a second."""

NAME, OTHER_NAME = "networks", "other_networks"
"""Results of this project's networks, and of those of others."""

Way: TypeAlias = tuple[str, dict[str, object]]
"""A command that makes processes ready to train one way, and its options; see `network_process`."""


class Child:
    """A process that obeys; see `network_process`."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.network_process"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, name: str, **options: object) -> None:
        """Give a command."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, options]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for what comes of it."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process that measured has ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()


@contextlib.contextmanager
def children(count: int, environment: dict[str, str]) -> Iterator[list[Child]]:
    """Yield so many processes."""
    group = [Child(environment) for _ in range(count)]
    try:
        yield group
    finally:
        for child in group:
            child.end()


def together(group: Sequence[Child], name: str, **options: object) -> list[dict[str, Any]]:
    """Give a command to some processes at once, and return their answers."""
    for child in group:
        child.send(name, **options)
    return [child.answer() for child in group]


def measure(
    row: Row, processes: int, *, starts: int, rounds: int, seconds: float, clock: str, bf16: bool
) -> dict[str, Any]:
    """Return what was found of a row, rates in images per second of all processes together, one for each round."""
    flops = model_flops(row.build(), row.batch, row.image)
    steps = max(2, min(1000, round(EPOCH / (flops * row.batch))))
    found: dict[str, Any] = {"GFLOP per image": flops / 1e9, "image": "x".join(map(str, row.image))}
    chosen = {}
    ways: dict[str, Way] = {"plain": ("plain", {})}
    for dtype in ("float32", "bfloat16") if bf16 else ("float32",):
        with children(1, worker_environment(threads=1)) as (one,):
            one.send("row", title=row.title, steps=steps)
            one.answer()
            one.send("choose", dtype=dtype, workers=max(2, processes))
            chosen[dtype] = one.answer()
        for lanes in sorted({*(LANES if dtype == "float32" else (1,)), chosen[dtype]["lanes"]}):
            ways[f"lanes {lanes} {dtype}"] = ("prepare", {"lanes": lanes, "dtype": dtype})
    rates: dict[str, list[float]] = {}
    for _ in range(starts):
        more = rates_of(row, processes, ways, steps=steps, rounds=rounds, seconds=seconds, clock=clock)
        rates = {way: rates.get(way, []) + more[way] for way in more}
    return found | {"auto": chosen, "rates": rates}


def rates_of(
    row: Row, processes: int, ways: dict[str, Way], *, steps: int, rounds: int, seconds: float, clock: str
) -> dict[str, list[float]]:
    """Return the rates of each way that its processes can train, which take turns for some rounds."""
    plain, ours = {**os.environ, "OMP_NUM_THREADS": "1"}, worker_environment(threads=1)
    there: dict[str, list[Child]] = {}
    with contextlib.ExitStack() as stack:
        for way, (command, options) in ways.items():
            # New processes for each: what ran in a process before decides how its memory lies.
            group = stack.enter_context(children(processes, plain if command == "plain" else ours))
            together(group, "row", title=row.title, steps=steps)
            answers = together(group, command, **options)
            if command == "plain" or "method" in answers[0]:
                there[way] = group
        rates: dict[str, list[float]] = {way: [] for way in there}
        for turn in range(rounds):
            for way in list(there) if turn % 2 == 0 else list(reversed(there)):
                answers = together(there[way], "train", way=way, seconds=seconds)
                rates[way].append(sum(a["images"] / a[clock] for a in answers))
    return rates


def figures_of(found: dict[str, Any], matrix: dict[str, float]) -> dict[str, Any]:
    """Return a row's figures as they are written.

    Args:
        found: what `measure` gives.
        matrix: GFLOP/s of all processes together, by dtype.
    """
    rates = found.pop("rates")
    chosen = found.pop("auto")
    rows: dict[str, Any] = dict(found)
    plain = rates["plain"]
    for way, values in rates.items():
        name = way.removesuffix(" float32")
        rows[name] = Spread.of(values, "images/s")
    for dtype, choice in chosen.items():
        auto = rates[f"lanes {choice['lanes']} {dtype}"]
        ways = {way: statistics.median(v) for way, v in rates.items() if way.endswith(dtype)}
        best = max(ways, key=ways.__getitem__)
        tail = "" if dtype == "float32" else f" {dtype}"
        share = [100 * rate * found["GFLOP per image"] / matrix[dtype] for rate in auto]
        costs = choice.pop("costs")
        rows |= {
            f"auto{tail}": {**choice, "seconds per image, measured": costs},
            f"auto{tail} of plain": Spread.of([a / b for a, b in zip(auto, plain, strict=True)], "x"),
            f"auto{tail} of the best, {best.removesuffix(f' {dtype}')}": statistics.median(auto) / ways[best],
            f"auto{tail} of the matrix rate": Spread.of(share, "%"),
        }
    alone = rates["lanes 1 float32"]
    rows["lanes 1 of plain"] = Spread.of([a / b for a, b in zip(alone, plain, strict=True)], "x")
    return rows


def line(title: str, row: dict[str, Any]) -> str:
    """Return a row in one line, its rates as multiples of the plain loop's."""
    plain = row["plain"].median
    said = [f"{title}: plain {plain:.0f} images/s"]
    ways = (way for way in row if way.startswith("lanes ") and "of" not in way)
    said += [f"{way.removeprefix('lanes ')} {row[way].median / plain:.2f}x" for way in ways]
    for auto in (name for name in ("auto", "auto bfloat16") if name in row):
        best = next(row[name] for name in row if name.startswith(f"{auto} of the best"))
        share = row[f"{auto} of the matrix rate"].median
        choice = row[auto]
        said.append(f"{auto} {choice['lanes']} ({choice['method']}), {best:.2f} of the best, {share:.0f} %")
    return "; ".join(said) + (f"; {row['auto']['reason']}" if row["auto"]["reason"] else "")


def matrix_rate(processes: int, *, bf16: bool) -> dict[str, list[float]]:
    """Return GFLOP/s of products in each process, by dtype and library."""
    dtypes = ("float32", "bfloat16") if bf16 else ("float32",)
    return {
        f"{dtype}, {library}": matrix_rates(20, processes=processes, dtype=dtype, library=library)
        for dtype in dtypes
        for library in ("torch", "onednn")
    }


def main(words: Sequence[str]) -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.networks")
    parser.add_argument("--only", nargs="+", metavar="NAME:BATCH", help="these rows alone")
    parser.add_argument("--others", action="store_true", help=f"networks of others, into {OTHER_NAME}.json")
    parser.add_argument("--name", help="of the result's file")
    parser.add_argument("--starts", type=int, default=1, help="of new processes for each way")
    parser.add_argument("--rounds", type=int, default=3, help="of each start")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a way in a round, at least")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="rates by it: others use the cores, too"
    )
    parser.add_argument("--no-bf16", action="store_true")
    parser.add_argument(
        "--keep", action="store_true", help="with --only: write the rows into the result, too"
    )
    chosen = parser.parse_args(words)
    rows = OTHERS if chosen.others else ROWS
    name = chosen.name or (OTHER_NAME if chosen.others else NAME)
    titles = [row.title for row in rows]
    if unknown := set(chosen.only or ()) - set(titles):
        parser.error(f"no row {', '.join(sorted(unknown))}; there is {', '.join(titles)}")
    bf16 = multiplies_bf16() and not chosen.no_bf16
    rates = matrix_rate(chosen.processes, bf16=bf16)
    matrix = {
        dtype: chosen.processes
        * max(statistics.median(found) for name, found in rates.items() if name.startswith(dtype))
        for dtype in ("float32", "bfloat16")[: 1 + bf16]
    }
    figures: dict[str, Any] = {"processes": chosen.processes} | {
        f"matrix rate, {name}, each of {chosen.processes} processes": Spread.of(found, "GFLOP/s")
        for name, found in rates.items()
    }
    for row in rows:
        if chosen.only and row.title not in chosen.only:
            continue
        began = time.perf_counter()
        found = measure(
            row,
            chosen.processes,
            starts=chosen.starts,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            clock="processor" if chosen.processor_time else "wall",
            bf16=bf16,
        )
        figures[row.title] = figures_of(found, matrix)
        print(f"{line(row.title, figures[row.title])} [{time.perf_counter() - began:.0f} s]", flush=True)
    if not chosen.only:
        write(name, figures)
    elif chosen.keep:
        path = RESULTS / f"{name}.json"
        kept = json.loads(path.read_text())["figures"] if path.exists() else {}
        found = kept | figures
        places = {row.title: i for i, row in enumerate(rows)}
        write(name, dict(sorted(found.items(), key=lambda item: places.get(item[0], -1))))


if __name__ == "__main__":
    main(sys.argv[1:])
