"""Models that talk, raise, die and sleep, and the packs and workers that train them: for the tests of executors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from gridsearch.records import ImageSettings, Lane, Pack, Trial, TrialState, WorkerSetup

NETS = """
    import os, pathlib, subprocess, sys, time
    from torch import nn

    class Plain(nn.Module):
        def __init__(self, in_channels, num_classes, image_size):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        def forward(self, x):
            return self.net(x)

    class Raises(Plain):
        def forward(self, x):
            raise RuntimeError("no such luck")

    class Shouts(Plain):
        def forward(self, x):
            raise RuntimeError("no " * 3_000_000)

    class Talks(Plain):
        def __init__(self, **k):
            super().__init__(**k)
            print("built with", k["num_classes"])
            print("beware", file=sys.stderr)

    class Murmurs(Plain):
        def forward(self, x):
            print("no newline", end="")
            return self.net(x)

    class Writes(Plain):
        def forward(self, x):
            import ctypes, subprocess
            os.write(1, b"raw \\xc3")
            time.sleep(0.2)
            os.write(2, b"\\xa9\\xff\\n")
            subprocess.run(["echo", "from a child"])
            ctypes.CDLL(None).puts(b"from C")
            print("to the first stdout", file=sys.__stdout__)
            print("no newline", end="")
            return self.net(x)

    class Dies(Plain):
        def forward(self, x):
            os.kill(os.getpid(), 9)

    class Forks(Plain):
        def forward(self, x):
            if os.fork() == 0:
                time.sleep(600)
            os.kill(os.getpid(), 9)

    class Leaves(Plain):
        def forward(self, x):
            here = pathlib.Path(__file__).parent
            daemon = ["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & echo $!"]
            (here / "pid.part").write_bytes(subprocess.run(daemon, stdout=subprocess.PIPE).stdout)
            (here / "pid.part").rename(here / "pid")
            if (here / "dies").exists():
                os.kill(os.getpid(), 9)
            time.sleep(600)

    class Daemons(Plain):
        def forward(self, x):
            here = pathlib.Path(__file__).parent
            if not (here / "orphan").exists():
                daemon = ["sh", "-c", "setsid sleep 600 > /dev/null 2>&1 & echo $!"]
                (here / "orphan").write_bytes(subprocess.run(daemon, stdout=subprocess.PIPE).stdout)
                Daemons.pool = subprocess.Popen(["sleep", "600"])
                (here / "child").write_text(str(Daemons.pool.pid))
            return super().forward(x)

    class Exits(Plain):
        def forward(self, x):
            os.write(2, b"last words\\n")
            os._exit(7)

    class Sleeps(Plain):
        def forward(self, x):
            time.sleep(600)
"""


def setup(nets: Path, name: str = "w0") -> WorkerSetup:
    from gridsearch import plugins

    found = [
        plugins.find(f"{nets}:{n}", plugins.MODELS)
        for n in (
            "Plain",
            "Raises",
            "Shouts",
            "Talks",
            "Murmurs",
            "Writes",
            "Dies",
            "Forks",
            "Leaves",
            "Daemons",
            "Exits",
            "Sleeps",
        )
    ]
    return WorkerSetup(
        name=name,
        dataset="digits",
        models={p.name: p.locator for p in found},
        data_root=str(nets.parent / "data"),
        device="cpu",
        threads=1,
    )


@lru_cache
def digits() -> str:
    """The fingerprint of the images that these trials train on."""
    from gridsearch.zoo import datasets

    return datasets.fingerprint(datasets.open_dataset("digits"), Path("unused"), {})


def pack(nets: Path, tmp_path: Path, *models: str, name: str = "p") -> Pack:
    from gridsearch import plugins

    source = plugins.find(f"{nets}:Plain", plugins.MODELS).source
    lanes = []
    for i, model in enumerate(models):
        settings = ImageSettings(
            dataset="digits",
            data_fingerprint=digits(),
            model=f"nets.py:{model}",
            model_source=source,
            epochs=1,
            subset=100,
            batch=50,
        )
        trial = Trial(
            id=10 + i,
            number=i,
            key=str(i),
            seed=0,
            settings=settings,
            params={},
            state=TrialState.RUNNING,
            attempt=1,
        )
        lanes.append(Lane(trial, str(tmp_path / f"scratch-{name}-{i}")))
    return Pack(name, tuple(lanes))
