"""The README's example as a user runs it: Fashion-MNIST, 6 trials of 10 epochs; its picture, its numbers, its sentence.

``python -m tests.benchmarks.readme`` makes all three from one run: `readme.json`, the picture of that run's report, and
the sentence below the picture in README.md.  A test holds the README to the JSON, and the picture to the templates.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from tests.benchmarks import program
from tests.benchmarks.measure import Spread, write
from tests.browser import chromium, executable

COMMAND = ("run", "--grid", "lr=.01,.001", "batch=10,20,50")
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "studies" / "fmnist-report.png"
WIDTH, MOST_HEIGHT = 1180, 1600
TEMPLATES = ROOT / "gridsearch" / "reporting" / "templates"
NOT_ON_THE_PAGE = ("card.md", "comparison.html", "trials.html", "notebook.html", "live.html", "live.js")
"""Templates of other pages: a change of theirs leaves the picture as it is."""

PARAGRAPH = re.compile(r"^The picture: .*?(?=\n\n)", flags=re.MULTILINE | re.DOTALL)


def torch_alone() -> float:
    """Megabytes of a process that has imported torch and made its first optimizer step, and nothing else."""
    code = (
        "import torch, psutil\n"
        "torch.set_num_threads(1)\n"
        "m = torch.nn.Linear(8, 8); o = torch.optim.Adam(m.parameters()); m(torch.ones(1, 8)).sum().backward(); o.step()\n"
        "print(psutil.Process().memory_info().rss)"
    )
    return int(subprocess.check_output([sys.executable, "-c", code])) / 1e6


def without_compiler(n: int) -> Spread:
    """How many times as long two epochs of the command take without a C compiler, run in turn."""
    ratios = []
    for _ in range(n):
        walls = []
        for variables in ({"GRIDSEARCH_KERNELS": "off"}, {}):
            with tempfile.TemporaryDirectory() as home:
                words = (*COMMAND, "--epochs", "2", "--no-report")
                walls.append(program.run(*words, home=home, **variables).wall)
        ratios.append(walls[0] / walls[1])
    return Spread.of(ratios, "times")


def digest_of_templates() -> str:
    """The SHA-256 of all that the report's page is made of, by the files' names and contents."""
    found = hashlib.sha256()
    for path in sorted(TEMPLATES.iterdir()):
        if path.is_file() and path.name not in NOT_ON_THE_PAGE:
            found.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def digest_of_picture() -> str:
    """The SHA-256 of the picture."""
    return hashlib.sha256(PICTURE.read_bytes()).hexdigest()


def photograph(page: Path) -> None:
    """Write the picture: a report's page down to its heatmap as a browser shows it, in light colours."""
    path = executable()
    if path is None:
        raise RuntimeError("the picture needs Chromium (Debian: apt-get install chromium)")
    with chromium(path) as browser:
        view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.as_uri())
        view.wait_for_timeout(1000)  # scripts draw the figures
        grid = view.locator("section[aria-labelledby=grid]").bounding_box()
        height = min(grid["y"] + grid["height"], MOST_HEIGHT)
        shown = {"x": 0, "y": 0, "width": WIDTH, "height": height}
        view.screenshot(path=str(PICTURE), full_page=True, clip=shown)


def sentence(measured: dict[str, Any]) -> str:
    """What the README says below its picture, by the JSON that was measured in the same run."""
    figures, hardware = measured["figures"], measured["hardware"]
    # processors of one name differ by far: with vectors of twice the width the same run took 17 s
    vectors = (
        "AVX-512"
        if "avx512f" in hardware["features"]
        else "AVX2"
        if "avx2" in hardware["features"]
        else "SIMD"
    )
    words = (
        f"The picture: 6 trials of 10 epochs of a LeNet on Fashion-MNIST, {figures['wall']['median']:.0f} s from start "
        f"to report on {hardware['cores']} cores ({hardware['cpu']} with {vectors}, n={figures['wall']['n']}; "
        f"`python -m tests.benchmarks.readme`). A worker took {figures[MEMORY]['median']:.0f} MB, "
        f"{figures['torch alone'].removesuffix(' MB')} of them torch's own. Without a C compiler two epochs of it take "
        f"{figures[COMPILER]['median']:.1f} times as long (n={figures[COMPILER]['n']})."
    )
    return textwrap.fill(words, 120, break_on_hyphens=False, break_long_words=False)


MEMORY = "a worker's resident memory"
COMPILER = "two epochs without a compiler"


def main(n: int = 1) -> None:
    walls, memories, found = [], [], {}
    for _ in range(n):
        with tempfile.TemporaryDirectory() as home:
            done = program.run(*COMMAND, home=home)
            photograph(Path(home) / "fmnist" / "report" / "index.html")
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
            MEMORY: Spread.of(memories, "MB"),
            "torch alone": f"{alone:.0f} MB",
            COMPILER: without_compiler(3),
            "sum of the trials' seconds (last run)": round(training, 1),
            "ranking (last run)": {json.dumps(p["params"]): round(p["mean"], 4) for p in found["points"]},
            "picture (last run)": digest_of_picture(),
            "templates of the picture": digest_of_templates(),
        },
    )
    readme = ROOT / "README.md"
    measured = json.loads((ROOT / "tests" / "benchmarks" / "results" / "readme.json").read_text())
    text, replaced = PARAGRAPH.subn(lambda _: sentence(measured), readme.read_text())
    assert replaced == 1, "README.md has no paragraph that begins with 'The picture: '"
    readme.write_text(text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
