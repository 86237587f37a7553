"""One study of `chaos`: it is started, killed, refused the disk and interrupted until it is done, and then compared."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from tests.benchmarks.fork_server import WAITS, ForkServer, over, runnable
from tests.benchmarks.store_contents import ask, going_on_from, results

if TYPE_CHECKING:
    from pathlib import Path

EPOCHS = 12
WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--subset", "300", "--set", "optimizer=sgd"),
    *(
        "--grid",
        "lr=.1,.03,1e12",
        f"epochs=4,{EPOCHS}",
        "--lanes",
        "2",
        "--workers",
        "1",
        "--retries",
        "1000",
    ),
    *("--checkpoint", "every-epoch", "--no-report"),
)
"""Six trials in packs of two: lanes that end at different epochs, and two that diverge."""

STARTS = 200
"""An episode that is not done after so many starts gets nowhere."""

FAULTS = (
    *(("write", 43), ("sync", 103), ("rename", 51), ("renamed", 51), ("commit", 14), ("committed", 14)),
)
"""Fault points, and how often a start passes them, about."""

REFUSED = ("write", "sync", "rename", "commit")
"""Where the disk may refuse a step; the others lie behind one."""


@dataclass
class Damage:
    """What was found wrong; all of it must be nothing."""

    lost: int = 0
    doubled: int = 0
    twice: int = 0
    bytes_differ: int = 0
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Damage) -> Damage:
        self.lost += other.lost
        self.doubled += other.doubled
        self.twice += other.twice
        self.bytes_differ += other.bytes_differ
        self.wrong += other.wrong
        return self

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.twice or self.bytes_differ or self.wrong)


class Episode:
    """One study from its first start to its end.

    Args:
        server: makes the runners.
        home: the study's.
        expected: what a run gives that nothing disturbs, see `results`.
        seconds: that such a run takes.
        seed: of all that happens.
        workers: whether a worker process trains.
    """

    def __init__(
        self, server: ForkServer, home: Path, expected: dict, seconds: float, *, seed: int, workers: bool
    ) -> None:
        self.home = home
        self.damage = Damage()
        self.happened: Counter[str] = Counter()
        self.resumed = 0
        self._server = server
        self._expected = expected
        self._seconds = seconds
        self._random = random.Random(seed)
        self._executor = "local" if workers else "inline"
        self._err = home.with_suffix(".err")
        self._mark = home.with_suffix(".mark")

    def run(self, most: int) -> None:
        """Start, and do something to it, until the study is done; from so many kills on nothing more is done to it."""
        for _ in range(STARTS):
            disturbance = self._disturbance() if sum(self.happened.values()) < most else None
            expected = going_on_from(self.home)
            code = self._start(disturbance)
            self._check_going_on(expected, code)
            self.resumed += any(expected.values())
            if code == 0:
                break
            if problem := self._unexpected(code, disturbance):
                self._complain(f"{disturbance}: exit {code}, {problem}")
                if disturbance is None:
                    break
        else:
            self._complain(f"not done after {STARTS} starts")
        self._compare()

    def _disturbance(self) -> tuple[str, ...]:
        if self._executor == "local" and not self.happened:
            return "kill worker", "0"
        point, passes = self._random.choice(FAULTS)
        number = str(self._random.randint(1, passes))
        later = str(self._random.uniform(0.0, 1.2 * self._seconds))
        disturbances = [
            ("kill", later),
            ("fault", point, "die", number),
            ("fault", point, "stop", number),
            ("fault", self._random.choice(REFUSED), self._random.choice(("ENOSPC", "EIO")), number),
            ("interrupt", self._random.choice(("INT", "TERM")), later),
        ]
        weights = [5, 5, 2, 2, 1]
        if self._server.shim:
            call = self._random.choice(("pwrite", "fsync"))
            action = self._random.choice(("EIO", "ENOSPC", "torn") if call == "pwrite" else ("EIO",))
            disturbances.append(("disk", call, action, str(self._random.randint(1, 150))))
            weights.append(4)
        if self._executor == "local":
            disturbances.append(("kill worker", later))
            weights.append(8)
        return self._random.choices(disturbances, weights)[0]

    def _start(self, disturbance: tuple[str, ...] | None) -> int:
        """Start the run, do something to it, and return its exit code once it has ended."""
        environment = {"GRIDSEARCH_FAULT": "", "GRIDSEARCH_FAULT_MARK": str(self._mark)}
        if disturbance is not None and disturbance[0] == "fault":
            environment["GRIDSEARCH_FAULT"] = ":".join(disturbance[1:])
        if disturbance is not None and disturbance[0] == "disk":
            environment |= {
                "FAILING_CALL": disturbance[1],
                "FAILING_ACTION": disturbance[2],
                "FAILING_AT": disturbance[3],
            }
            environment["FAILING_MARK"] = str(self._mark)
        self._mark.unlink(missing_ok=True)
        words = (*WORDS, "--home", str(self.home), "--executor", self._executor)
        process = self._server.start(words, self._err, environment)
        if disturbance is not None and disturbance[0] not in ("fault", "disk"):
            self._strike(process, disturbance)
        ran = time.monotonic()
        while not over(process):
            self._wake(process, disturbance)
            if runnable(process):
                ran = time.monotonic()
            if time.monotonic() - ran > WAITS:
                self._complain(f"{disturbance}: hangs, {self._where(process)}")
                process.kill()
                ran = float("inf")
            time.sleep(0.005)
        code = self._server.ended(process)
        if disturbance is not None and disturbance[0] in ("fault", "disk") and self._mark.exists():
            self.happened[disturbance[2]] += 1
        return code

    def _where(self, process: psutil.Process) -> str:
        """Return what a process that hangs is doing, and what it has said."""
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        doing = [(each.pid, each.status()) for each in (process, *process.children(recursive=True))]
        return f"{doing}: {self._err.read_text(errors='replace')[-4000:]}"

    def _strike(self, process: psutil.Process, disturbance: tuple[str, ...]) -> None:
        until = time.monotonic() + float(disturbance[-1])
        while time.monotonic() < until and not over(process):
            time.sleep(0.002)
        with contextlib.suppress(psutil.NoSuchProcess):
            if over(process):
                return
            if disturbance[0] == "kill worker":
                self._kill_worker(process)
            elif disturbance[0] == "kill":
                workers = process.children(recursive=True)
                process.kill()
                self.happened["kill"] += 1
                _, alive = psutil.wait_procs(workers, timeout=20)
                if alive:
                    self._complain("a worker outlived its runner")
            else:
                process.send_signal(getattr(signal, f"SIG{disturbance[1]}"))
                self.happened["interrupt"] += 1

    def _kill_worker(self, process: psutil.Process) -> None:
        """Kill the worker and leave the runner alone: while it starts, or once it has written some checkpoints."""
        order = self._random.randint(0, EPOCHS - 1)
        while not over(process):
            workers = [each for each in process.children() if each.children()]  # not what forks them
            written = (self.home / "digits" / "trials").glob("*/.attempt-*/checkpoint-*")
            if workers and (order == 0 or any(int(path.name.split("-")[1]) >= order for path in written)):
                workers[0].kill()
                self.happened["kill worker"] += 1
                return
            time.sleep(0.002)

    def _wake(self, process: psutil.Process, disturbance: tuple[str, ...] | None) -> None:
        """Let go on what has stopped at a fault point; now and then it is killed where it stands."""
        if disturbance is None or "stop" not in disturbance or not self._mark.exists():
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (process, *process.children(recursive=True)):
                if each.status() == psutil.STATUS_STOPPED:
                    if self._random.random() < 0.5:
                        each.kill()
                    else:
                        each.resume()

    # What must be

    def _unexpected(self, code: int, disturbance: tuple[str, ...] | None) -> str | None:
        """Return what is wrong with how a start has ended, None if it had to end so."""
        said = self._err.read_text(errors="replace")
        if "Traceback" in said or "a bug" in said:
            return said[-2000:]
        match disturbance:
            case ("kill", _) | ("fault", _, "die" | "stop", _):
                right = code == -signal.SIGKILL
            case ("disk", _, "torn", _):
                right = code == -signal.SIGKILL
            case ("interrupt", "INT", _):
                right = code == 130
            case ("interrupt", "TERM", _):
                right = code in (143, -signal.SIGTERM)  # the second before anything is trained
            case ("fault" | "disk", _, "ENOSPC" | "EIO", _):
                right = code in (4, 75) and "gridsearch: error: " in said
            case _:
                right = False
        return None if right else said[-2000:]

    def _check_going_on(self, expected: dict[int, int], code: int) -> None:
        """Check that no trial goes on from before its checkpoint: by what the run says, and by what lies there now."""
        after = going_on_from(self.home)
        said = self._err.read_text(errors="replace")
        found = {
            int(number): int(epoch)
            for numbers, epoch in re.findall(r"trials? ([\d, ]+): continues? from epoch (\d+) of", said)
            for number in numbers.split(",")
        }
        for trial, epoch in expected.items():
            if trial in found:
                self.damage.twice += max(0, epoch - found[trial])
            elif code == 0:
                self.damage.twice += epoch
            self.damage.twice += max(0, epoch - after.get(trial, epoch))

    def _complain(self, text: str) -> None:
        self.damage.wrong.append(text)

    def _compare(self) -> None:
        """Compare all that is there with what a run gives that nothing disturbs."""
        found = results(self.home)
        there, wanted = (
            Counter(key for key, *_ in found["trials"]),
            {key for key, *_ in self._expected["trials"]},
        )
        done = Counter(key for key, state, *_ in found["trials"] if state in ("complete", "diverged"))
        self.damage.lost += len(wanted - set(done))
        self.damage.doubled += sum(n - 1 for n in there.values()) + len(set(there) - wanted)
        for kind, rows in self._expected.items():
            differ = sorted(set(rows) ^ set(found[kind]), key=str)
            self.damage.bytes_differ += len(differ) or abs(len(rows) - len(found[kind]))
            if differ:
                self._complain(f"{kind} differ: {differ[:4]}")
        for pragma, right in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
            if (answer := ask(self.home, f"pragma {pragma}")) != right:
                self._complain(f"{pragma}: {answer}")
        left = [
            p.name for p in (self.home / "digits").rglob("*") if p.name.startswith((".attempt-", ".partial-"))
        ]
        if left:
            self._complain(f"left behind: {left}")
