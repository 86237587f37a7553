"""What is lost when a run is killed again and again: points, epochs, bytes. Each number must be 0.

    python -m tests.benchmarks.chaos --kills 1000 [--seed 0] [--home FOLDER] [--print]

An episode is one study in a home of its own, from its first start until it is done: each start is killed at a random
moment or at a fault point (`gridsearch.faults`), is refused the disk there, stopped and woken again, or interrupted;
the next start goes on.  At its end everything is compared with a run that nothing disturbed.  Most starts train in
their own process, a copy of one that has loaded everything (`ForkServer`); every `WORKERS_EVERY`-th episode has a worker
process, which is killed too while its runner goes on.  A seed names an episode: `--kills 1 --seed N` runs it again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.chaos_episode import WORDS, Damage, Episode
from tests.benchmarks.fork_server import ForkServer
from tests.benchmarks.measure import write
from tests.benchmarks.store_contents import results

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIALS = 6
WORKERS_EVERY = 10


@dataclass
class Outcome:
    """What came of all episodes."""

    kills: int = 0
    episodes: int = 0
    resumed: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    damage: Damage = field(default_factory=Damage)
    damaged: dict[int, Damage] = field(default_factory=dict)


@contextlib.contextmanager
def undisturbed(folder: Path) -> Iterator[tuple[ForkServer, dict, float]]:
    """Give a server, and the results and the seconds of a run that nothing disturbs."""
    server = ForkServer(folder, WORDS)
    try:
        began = time.monotonic()
        words = (*WORDS, "--home", str(folder / "unbroken"), "--executor", "inline")
        process = server.start(words, folder / "unbroken.err", {})
        code = server.ended(process)
        assert code == 0, (folder / "unbroken.err").read_text()
        expected = results(folder / "unbroken")
        assert len(expected["trials"]) == TRIALS
        assert {state for _, state, *_ in expected["trials"]} == {"complete", "diverged"}
        yield server, expected, time.monotonic() - began
    finally:
        server.close()


def chaos(folder: Path, kills: int, *, seed: int = 0, workers_every: int = WORKERS_EVERY) -> Outcome:
    """Run episodes until there were so many kills (refusals, stops and interruptions count too).

    Args:
        folder: for all homes.
        kills: how many.
        seed: of the first episode; the next has the next.
        workers_every: in every so many episodes a worker process trains.
    """
    outcome = Outcome()
    with undisturbed(folder) as (server, expected, seconds):
        while outcome.kills < kills:
            number = seed + outcome.episodes
            workers = number % workers_every == workers_every - 1
            episode = Episode(server, folder / f"{number}", expected, seconds, seed=number, workers=workers)
            episode.run(kills - outcome.kills)
            outcome.episodes += 1
            outcome.happened += episode.happened
            outcome.resumed += episode.resumed
            outcome.kills = sum(outcome.happened.values())
            outcome.damage += episode.damage
            if episode.damage:
                outcome.damaged[number] = episode.damage
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--home", type=Path, help="keep all homes there")
    parser.add_argument("--print", action="store_true", help="print the result, and write none")
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        outcome = chaos(folder, options.kills, seed=options.seed)
    figures = {
        "kills": outcome.kills,
        "of them": dict(outcome.happened),
        "studies": outcome.episodes,
        "starts that found a checkpoint": outcome.resumed,
        "seeds": f"{options.seed} to {options.seed + outcome.episodes - 1}",
        "points lost": outcome.damage.lost,
        "points doubled": outcome.damage.doubled,
        "epochs trained twice": outcome.damage.twice,
        "rows and files different": outcome.damage.bytes_differ,
        "anything else wrong": len(outcome.damage.wrong),
        "seconds": round(time.monotonic() - began, 1),
    }
    for number, damage in outcome.damaged.items():
        print(f"seed {number}: {json.dumps(asdict(damage), indent=1)}", file=sys.stderr)
    if options.print:
        print(json.dumps(figures, indent=1))
    else:
        write("chaos", figures)
    return 1 if outcome.damage else 0


if __name__ == "__main__":
    sys.exit(main())
