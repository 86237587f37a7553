"""What all benchmarks share: repeated measurement, the hardware, one JSON file a benchmark."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve",
)  # fmt: skip
"""What a processor can do that decides how fast it multiplies, as Linux names it."""

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "optuna", "sqlalchemy", "numpy", "pandas", "scikit-learn", "ray", "skorch")


@dataclass(frozen=True)
class Spread:
    """A figure measured n times."""

    median: float
    least: float
    most: float
    n: int
    unit: str

    @classmethod
    def of(cls, values: list[float], unit: str) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values), unit)

    def __str__(self) -> str:
        def text(x: float) -> str:
            return f"{x:.3g}" if x < 100 else f"{x:.0f}"

        return f"{text(self.median)} {self.unit} ({text(self.least)} to {text(self.most)}, n={self.n})"


def timed(work: Callable[[], object], n: int) -> list[float]:
    """Seconds of each of n calls."""
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def processor() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = reversed(cpuinfo.read_text().splitlines()) if cpuinfo.exists() else ()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def features() -> list[str]:
    """Which of `FEATURES` this processor has."""
    described = processor()
    flags = (described.get("flags") or described.get("Features", "")).split()
    return [name for name in FEATURES if name in flags]


def multiplies_bf16() -> bool:
    """Whether this processor has instructions that multiply bfloat16."""
    return any(name in features() for name in ("avx512_bf16", "amx_bf16", "bf16"))


def hardware() -> dict[str, Any]:
    """What it was measured on."""
    described = processor()
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": described.get("model name", platform.processor() or platform.machine()),
        # one name may stand for several generations
        "model": ", ".join(f"{key} {described[key]}" for key in ("cpu family", "model") if key in described),
        "features": features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "versions": found,
    }


def write(name: str, figures: dict[str, Any]) -> None:
    """Write one benchmark's result, in which figures may lie in groups, and print it."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "benchmark": name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "figures": figures,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, default=asdict) + "\n")
    print(f"{name}", file=sys.stderr)
    _show(figures, "  ")


def _show(figures: dict[str, Any], indent: str) -> None:
    for key, value in figures.items():
        if isinstance(value, dict):
            print(f"{indent}{key}", file=sys.stderr)
            _show(value, indent + "  ")
        else:
            print(f"{indent}{key:<44} {value}", file=sys.stderr)
