import subprocess
import sys
from pathlib import Path

from gridsearch.spec.key_table import help_text, markdown_table

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_docs_is_that_of_the_declarations():
    assert markdown_table() in (ROOT / "docs" / "recipe.md").read_text(), (
        "write what gridsearch.spec.key_table.markdown_table() returns into docs/recipe.md"
    )


def test_the_help_tells_of_each_key_its_range_and_its_default():
    text = help_text()
    assert "  lr or learning_rate: learning rate (above 0; default 0.001)\n" in text
    assert "  optimizer: optimizer (sgd adam adamw nadam rmsprop or file.py:name; default adam)\n" in text
    assert "--dataset" not in text


DECLARE_A_KEY = """
import importlib.abc, importlib.util, sys
from pathlib import Path

NAME = "gridsearch.records.image_settings"
DECLARATION = '    clip: float = key(1.0, "largest norm of gradients", POSITIVE, fusible=True, log=True, later=True)\\n'

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == NAME else None
    def exec_module(self, module):
        source = (Path(sys.argv[1]) / "gridsearch/records/image_settings.py").read_text()
        assert source.count("    split_seed: int") == 1
        exec(source.replace("    split_seed: int", DECLARATION + "    split_seed: int"), module.__dict__)

sys.meta_path.insert(0, Finder())
"""

USE_IT = """
import json
from gridsearch.errors import SpecError
from gridsearch.records import ImageSettings, Settings, trial_key
from gridsearch.spec import Grid, Recipe, StudySpec, build
from gridsearch.spec.key_table import help_text, markdown_table
from gridsearch.store.params import StudyAxes, grow

# parsed, from the command line and from Python, and bounded
spec = build(words=["clip=.5,2"])
assert spec.grid.axes == ("clip",) and spec == build(words=["clip=0.5,2.0"])
assert build(settings=["clip=3"]).recipe == Recipe(clip=3.0) == Recipe.of({"clip": "3"})
for wrong in (lambda: Recipe(clip=0), lambda: build(words=["clip=0"])):
    try:
        wrong()
    except SpecError as error:
        assert "clip must be above 0, not 0" in error.problems[0], error.problems
    else:
        raise AssertionError
assert "--set clip=3" in build(settings=["clip=3"]).command()

# part of the settings, of the content address but for its default, and not of what packs share
base = ImageSettings(dataset="digits")
other = ImageSettings.from_json(json.loads(json.dumps(base.changed("clip", 2.0).to_json())))
assert other.clip == other.get("clip") == other.flat()["clip"] == 2.0
assert trial_key(other, 0) != trial_key(base, 0) == sys.argv[2]
assert other.shape() == base.shape()

# typed for Optuna
(axis,) = grow(StudyAxes(), axes=["clip"], settings=[base, other]).shown.axes
assert json.loads(axis.distribution(1.0, 2.0)) == {
    "name": "FloatDistribution", "attributes": {"step": None, "low": 1.0, "high": 2.0, "log": True}
}

# told
assert "  clip: largest norm of gradients (above 0; default 1)" in help_text()
assert "| `clip` | largest norm of gradients | above 0 | `1` | `--grid`, `--set` | yes |" in markdown_table()
"""


def test_a_key_that_is_declared_in_one_place_is_parsed_bounded_told_and_typed():
    from gridsearch.records import ImageSettings, trial_key

    key = trial_key(ImageSettings(dataset="digits"), 0)
    command = [sys.executable, "-c", DECLARE_A_KEY + USE_IT, str(ROOT), key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
