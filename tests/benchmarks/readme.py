"""The README's example as a user runs it: Fashion-MNIST, 6 trials of 10 epochs, wall time and workers' memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from tests.benchmarks import program
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


def main(n: int = 1) -> None:
    walls, memories, found = [], [], {}
    for _ in range(n):
        with tempfile.TemporaryDirectory() as home:
            done = program.run(*COMMAND, home=home)
        walls.append(done.wall)
        memories.append(done.memory)
        found = done.result
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
