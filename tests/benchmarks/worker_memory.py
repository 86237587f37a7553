"""How well the plan foretells a worker's memory: predicted, the kernel's own count of its peak, and their ratio.

``python -m tests.benchmarks.worker_memory``

Networks on 2,000 images of Fashion-MNIST with one worker: ``plan --probe``, then the run.  Other work on the machine does
not disturb it.
"""

from __future__ import annotations

import tempfile

from tests.benchmarks import program
from tests.benchmarks.measure import write

ROWS = (("mlp", 32), ("lenet", 32), ("lenet", 1000), ("cnn3", 32), ("cnn3", 256), ("resnet9", 64))
"""Networks and batch sizes."""


def compare(model: str, batch: int) -> dict[str, object]:
    """Predict and run once; megabytes of one worker."""
    grid = (
        *("--grid", "lr=.01,.001", "--model", model, "--set", f"batch={batch}"),
        *("--epochs", "1", "--subset", "2000", "--workers", "1"),
    )
    with tempfile.TemporaryDirectory() as home:
        planned = program.run("plan", *grid, "--probe", home=home)
        done = program.run("run", *grid, "--no-report", home=home)
    predicted = planned.result["worker_mb"]
    return {
        "predicted": f"{predicted:.0f} MB",
        "actual": f"{done.memory:.0f} MB",
        "predicted / actual": round(predicted / done.memory, 3),
        "lanes": planned.result["groups"][0]["lanes"],
    }


def main() -> None:
    write("worker_memory", {"n": 1, **{f"{model}:{batch}": compare(model, batch) for model, batch in ROWS}})


if __name__ == "__main__":
    main()
