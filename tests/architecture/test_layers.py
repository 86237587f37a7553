"""The structure that the code claims is the structure that it has."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "gridsearch").rglob("*.py"))


@pytest.fixture(scope="module")
def trees():
    """The syntax tree of every module, by its path: parsing all of them takes seconds."""
    return {path: ast.parse(path.read_text()) for path in MODULES}


def test_the_import_contracts_hold():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_draws_from_no_stream_of_the_process(trees):
    """It may be that of a trial in another thread, whose numbers would then depend on the moment."""
    drawing = {name for name in dir(random.Random) if not name.startswith("_")} - {"getstate", "setstate"}
    found = {
        (path.name, node.lineno)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr in drawing) == ("random", True)
        and path.name not in ("random_streams.py", "seeds.py")  # which set the streams of trials
    }
    assert not found


def test_the_public_names_are_these():
    import gridsearch

    assert gridsearch.__all__ == [
        "ArtifactError",
        "BestArguments",
        "DataError",
        "DeviceError",
        "EngineUnreachable",
        "FolderTaken",
        "Grid",
        "GridsearchError",
        "GridsearchWarning",
        "ImageData",
        "PluginError",
        "RunArguments",
        "SearchArguments",
        "SpecError",
        "StoreError",
        "StoreUnreachable",
        "StudyDeleted",
        "StudyNotFound",
        "StudyResult",
        "StudySpec",
        "TrainingFailed",
        "UnusableError",
        "UsageError",
        "__version__",
        "best",
        "compare",
        "load",
        "predict",
        "run",
    ]
    for name in gridsearch.__all__:
        assert getattr(gridsearch, name) is not None
    with pytest.raises(AttributeError):
        _ = gridsearch.nothing_like_it


HOMES = {
    "torch": {"training", "zoo", "executors"},
    "optuna": {"store"},
    "sqlalchemy": {"store"},
    "pandas": {"reporting"},
    "seaborn": {"reporting"},
    "tensorboard": {"reporting"},
    "matplotlib": {"reporting"},
}


def test_a_heavy_dependency_has_one_home(trees):
    homes: dict[str, set[str]] = {package: set() for package in HOMES}
    for path, tree in trees.items():
        for package in {name.partition(".")[0] for name in imported(tree)} & set(HOMES):
            homes[package].add(path.relative_to(ROOT / "gridsearch").parts[0])
    assert homes == HOMES


def imported(tree: ast.AST) -> tuple[str, ...]:
    """The modules that run-time code imports; what only the type checker sees does not count."""
    found: list[str] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append(node.module)
        waiting += ast.iter_child_nodes(node)
    return tuple(found)


def test_every_module_says_where_it_stands(trees):
    assert [str(path) for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_pickle_is_only_on_the_way_to_our_own_workers_and_torch_load_takes_weights_alone_of_a_file_that_the_user_named(
    trees,
):
    callers = {}
    for path, tree in trees.items():
        names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        # Its file has no name: nobody else can have written it.
        sends = path == ROOT / "gridsearch" / "executors" / "shipping.py"
        assert ("pickle" in names) == sends, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                callers[path.name] = {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"]
    assert callers == {"vgg.py": "True", "backbones.py": "True"}


def test_one_module_renames_files_and_makes_temporary_ones(trees):
    """A rename anywhere else is one that no fsync goes before, and that faults are not tried at."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and touches_names(node):
                assert path == ROOT / "gridsearch" / "files.py", f"{path}:{node.lineno}"


def test_nothing_that_watches_operators_brings_torchs_compiler():
    """Torch's own class would import it in every worker."""
    watching = {path.name for path in MODULES if "TorchDispatchMode" in path.read_text()}
    assert watching == {"dispatch_watch.py"}


def touches_names(call: ast.Call) -> bool:
    """Whether a call renames a file or makes one with a temporary name; `replace` of a text takes two arguments."""
    function = ast.unparse(call.func)
    name = function.rpartition(".")[2]
    one_path = len(call.args) == 1 and not call.keywords
    return (
        function in ("os.replace", "shutil.move")
        or name in ("mkstemp", "mkdtemp", "NamedTemporaryFile", "renames")
        or (name in ("rename", "replace") and one_path and not function.startswith("files."))
    )


def test_the_choices_of_the_spec_are_those_that_training_knows():
    from gridsearch.records.dtypes import DTYPES
    from gridsearch.spec import AXES
    from gridsearch.training import augment, lane_optimizer, schedules

    def choices(name: str) -> set:
        return set(AXES[name].choices)

    assert choices("optimizer") == set(lane_optimizer.OPTIMIZERS)
    assert choices("schedule") == set(schedules.SCHEDULES)
    assert choices("augment") == set(augment.AUGMENTATIONS)
    assert choices("dtype") == set(DTYPES)


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "__main__"))
    assert [name for name, count in names.items() if count > 1] == []


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_within(tree: ast.AST, names: set[str]) -> set[str]:
    """The modules of the package that a module imports anywhere: for types alone and inside functions, too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in names else node.module)
    return found & names


def test_no_module_imports_itself_by_way_of_others(trees):
    """Imports for types alone and inside functions count: a cycle of them is a cycle of ideas."""
    names = {dotted(path) for path in MODULES}
    try:
        modules = {dotted(path): imports_within(tree, names) for path, tree in trees.items()}
        TopologicalSorter({name: found - {name} for name, found in modules.items()}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
