"""Datasets by name, file and module, and the list of them."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from gridsearch.errors import DataError, PluginError, UsageError
from gridsearch.zoo import datasets


def write_plugin(folder, body):
    path = folder / "mine.py"
    path.write_text("import numpy as np\n\n" + textwrap.dedent(body))
    return path


# Finding one


@pytest.mark.parametrize("name", ["fmnist", "mnist", "digits"])
def test_built_in_datasets_are_entry_points_found_by_name(name):
    plugin = datasets.open_dataset(name)
    assert (plugin.name, plugin.locator, plugin.source) == (name, name, None)
    assert plugin.options(("root",)) == {}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(PluginError, match="unknown dataset 'fminst'; did you mean 'fmnist'"):
        datasets.open_dataset("fminst")


def test_a_bare_folder_is_answered_with_how_to_name_it(tmp_path):
    with pytest.raises(PluginError) as refusal:
        datasets.open_dataset(str(tmp_path))
    assert f"folder:{tmp_path}" in refusal.value.hint
    with pytest.raises(PluginError, match="needs a path"):
        datasets.open_dataset("folder")
    with pytest.raises(PluginError, match="needs a path"):
        datasets.open_dataset("folder:")


def test_a_folder_is_named_after_its_last_part_and_located_absolutely(tmp_path, monkeypatch):
    (tmp_path / "my:flowers").mkdir()
    monkeypatch.chdir(tmp_path / "my:flowers")
    for locator in ("folder:.", "folder:../my:flowers/", f"folder:{tmp_path}/my:flowers"):
        plugin = datasets.open_dataset(locator)
        assert plugin.name == "folder:my:flowers"
        assert plugin.target.path.resolve() == tmp_path / "my:flowers"
        assert plugin.target.path.is_absolute()
        assert plugin.locator == f"folder:{plugin.target.path}"
    assert plugin.options(("root",)) == {"size": "auto", "channels": "auto"}


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 5000, "\0", "a\nb"])
def test_a_path_that_can_be_none_is_refused_in_one_line(tmp_path, path):
    with pytest.raises(PluginError) as unknown:
        datasets.open_dataset(path)
    with pytest.raises(DataError, match=r"is not there|cannot be read: File name too long") as refusal:
        datasets.load(datasets.open_dataset(f"folder:{path}"), tmp_path, {})
    assert "\n" not in unknown.value.message + refusal.value.message


def test_importing_the_package_imports_nothing_heavy():
    heavy = "('torch', 'torchvision', 'sklearn', 'PIL', 'numpy', 'pandas')"
    program = f"import sys, gridsearch.zoo.datasets; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Calling one


def test_a_function_in_a_file_gives_a_dataset_with_options(tmp_path):
    path = write_plugin(
        tmp_path,
        """
        def Mine(root, *, count=6, kind="grey"):
            assert (root / "marker").exists()
            images = np.arange(count * 20).reshape(count, 4, 5)
            return {"train_images": images, "train_labels": np.arange(count) % 2, "class_names": ["a", "b"]}
        """,
    )
    (tmp_path / "marker").touch()
    plugin = datasets.open_dataset(f"{path}:Mine")
    assert plugin.options(("root",)) == {"count": 6, "kind": "grey"}
    data = datasets.load(plugin, tmp_path, {"count": 8})
    assert data.train_images.shape == (8, 1, 4, 5)
    assert data.train_images.dtype == np.uint8
    with pytest.raises(
        UsageError, match=r"data\.cuont: .*'mine.py:Mine' has no such option; did you mean 'count'"
    ):
        datasets.load(plugin, tmp_path, {"cuont": 8})


@pytest.mark.parametrize(
    "body",
    [
        "class Mine:\n    def __init__(self, root, flip=False):\n        self.__dict__ = DATA",
        "class Mine:\n    def __init__(self, folder):\n        assert folder.is_dir()\n        self.__dict__ = DATA",
        "def Mine():\n    return DATA",
        "def Mine(*, flip=True):\n    return DATA",
        "def Mine(**options):\n    assert options['root'].is_dir()\n    return DATA",
        "class _Maker:\n    def __call__(self, root):\n        return DATA\nMine = _Maker()",
    ],
    ids=["class", "root by another name", "no argument", "options alone", "any option", "object"],
)
def test_a_dataset_may_be_written_in_many_ways(tmp_path, body):
    path = write_plugin(
        tmp_path, "DATA = dict(train_images=np.zeros((4, 3, 3)), train_labels=[0, 1, 0, 1])\n" + body
    )
    plugin = datasets.open_dataset(f"{path}:Mine")
    assert datasets.load(plugin, tmp_path, {}).train_images.shape == (4, 1, 3, 3)
    assert datasets.available(plugin, tmp_path)
    assert datasets.verify(plugin, tmp_path) == ()
    assert datasets.fetch(plugin, tmp_path) == "nothing to fetch"


def test_an_option_without_a_default_must_be_given(tmp_path):
    plugin = datasets.open_dataset(f"{write_plugin(tmp_path, 'def Mine(root, *, count): ...')}:Mine")
    with pytest.raises(UsageError, match=r"data\.count: dataset 'mine.py:Mine' needs this option"):
        datasets.load(plugin, tmp_path, {})


@pytest.mark.parametrize("kind", [KeyError, SystemExit])
def test_what_a_dataset_raises_is_one_line_with_its_name(tmp_path, kind):
    path = write_plugin(tmp_path, f"def Mine(root):\n    raise {kind.__name__}('no\\nsuch thing')\n")
    plugin = datasets.open_dataset(f"{path}:Mine")
    with pytest.raises(DataError, match=rf"^dataset 'mine.py:Mine' failed: {kind.__name__}: ") as refusal:
        datasets.load(plugin, tmp_path, {})
    assert "\n" not in refusal.value.message
    assert isinstance(refusal.value.__cause__, kind)
    assert datasets.verify(plugin, tmp_path) == (refusal.value.message,)


def test_a_dataset_of_a_users_own_may_be_fetched_and_know_its_fingerprint(tmp_path):
    path = write_plugin(
        tmp_path,
        """
        class _Mine:
            def __call__(self, root, *, shade=1):
                return dict(train_images=np.full((4, 3, 3), shade), train_labels=np.load(root / "labels.npy"))
            def fetch(self, root, source=None, *, say=print):
                np.save(root / "labels.npy", [0, 1, 0, 1])
                return "thin air"
            def verify(self, root):
                return () if (root / "labels.npy").exists() else ("labels.npy is missing",)
            def fingerprint(self, root, *, shade=1):
                return f"mine-{shade}"
        Mine = _Mine()
        """,
    )
    plugin = datasets.open_dataset(f"{path}:Mine")
    assert not datasets.available(plugin, tmp_path)
    assert datasets.verify(plugin, tmp_path) == ("labels.npy is missing",)
    assert datasets.fetch(plugin, tmp_path) == "thin air"
    assert datasets.available(plugin, tmp_path)
    assert datasets.load(plugin, tmp_path, {"shade": 7}).train_images.max() == 7
    assert datasets.fingerprint(plugin, tmp_path, {"shade": 7}) == "mine-7"
    with pytest.raises(UsageError, match=r"data\.color"):
        datasets.fingerprint(plugin, tmp_path, {"color": 7})


def test_a_folder_to_fetch_from_has_no_meaning_where_nothing_is_fetched(tmp_path):
    with pytest.raises(UsageError, match="'digits' is not fetched"):
        datasets.fetch(datasets.open_dataset("digits"), tmp_path, tmp_path)


def test_digits_come_with_scikit_learn(tmp_path):
    plugin = datasets.open_dataset("digits")
    data = datasets.load(plugin, tmp_path, {})
    assert data.train_images.shape == (1797, 1, 8, 8)
    assert data.train_images.dtype == np.uint8
    assert (data.train_images.min(), data.train_images.max()) == (0, 255)
    assert len(np.unique(data.train_images)) == 17
    assert data.test_images is None
    assert data.class_names == tuple("0123456789")
    assert datasets.fingerprint(plugin, tmp_path, {}) == datasets.fingerprint_of(data)


# The list


def test_the_list_tells_what_is_ready_what_is_not_fetched_and_what_is_damaged(tmp_path):
    (tmp_path / "mnist").mkdir()
    for pinned in datasets.mnist.files:
        (tmp_path / "mnist" / pinned.name).write_bytes(b"x")
    found = {info.name: info for info in datasets.listing(tmp_path)}
    assert {"digits", "fmnist", "folder:PATH", "mnist"} <= set(found)
    assert found["digits"].state == "ready"
    assert found["fmnist"].state == "not fetched"
    assert found["fmnist"].problem == ""
    assert found["mnist"].state == "damaged"
    assert "expected 47040016 bytes, found 1" in found["mnist"].problem
    assert (found["fmnist"].image_shape, found["fmnist"].classes, found["fmnist"].licence) == (
        "1x28x28",
        10,
        "MIT",
    )
    assert found["fmnist"].size == 54_950_048


def test_images_that_differ_at_each_call_are_answered_with_a_seed_and_changed_files_are_not():
    assert "needs a seed" in datasets.images_changed("mine.py:drawn").hint
    assert datasets.images_changed("folder:pets").hint == "run again"
