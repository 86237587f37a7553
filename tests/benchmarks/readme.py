"""The README's example as a user runs it: Fashion-MNIST, 6 trials of 10 epochs, wall time and workers' memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import psutil

from tests.benchmarks.measure import Spread, write

COMMAND = ("run", "--grid", "lr=.01,.001", "batch=10,20,50")


def torch_alone() -> float:
    """Megabytes of a process that has imported torch and made its first optimizer step, and nothing else."""
    code = (
        "import torch, psutil\n"
        "torch.set_num_threads(1)\n"
        "m = torch.nn.Linear(8, 8); o = torch.optim.Adam(m.parameters()); m(torch.ones(1, 8)).sum().backward(); o.step()\n"
        "print(psutil.Process().memory_info().rss)"
    )
    return int(subprocess.check_output([sys.executable, "-c", code])) / 1e6


class _Watch(threading.Thread):
    """Watches the resident memory of a process's workers."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.most = 0.0

    def run(self) -> None:
        while self._process.is_running():
            try:
                for child in self._process.children(recursive=True):
                    self.most = max(self.most, child.memory_info().rss / 1e6)
            except psutil.Error:
                pass
            time.sleep(0.2)


def once(home: str) -> tuple[float, float, dict]:
    """Run it; return wall seconds, a worker's most megabytes, and the results."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *COMMAND, "--json", "-q"],
        env={**os.environ, "GRIDSEARCH_HOME": home},
        stdout=subprocess.PIPE,
    )
    watch = _Watch(process.pid)
    watch.start()
    out, _ = process.communicate()
    assert process.returncode == 0
    return time.perf_counter() - began, watch.most, json.loads(out)


def main(n: int = 1) -> None:
    walls, memories, found = [], [], {}
    for _ in range(n):
        with tempfile.TemporaryDirectory() as home:
            wall, memory, found = once(home)
        walls.append(wall)
        memories.append(memory)
    alone = torch_alone()
    training = sum(t["seconds"] for t in found["trials"])
    write(
        "readme",
        {
            "command": "gridsearch " + " ".join(COMMAND),
            "wall": Spread.of(walls, "s"),
            "a worker's resident memory": Spread.of(memories, "MB"),
            "torch alone": f"{alone:.0f} MB",
            "sum of the trials' seconds (last run)": round(training, 1),
            "ranking (last run)": {json.dumps(p["params"]): round(p["mean"], 4) for p in found["points"]},
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
