"""The built-in datasets, as entry points name them: the MNIST family, CIFAR-10, digits and a folder of images."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.folders import expanded
from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets.cifar import CifarDataset
from gridsearch.zoo.datasets.download_sources import DebianPackage, Folder, Mirrors
from gridsearch.zoo.datasets.folder import FolderDataset
from gridsearch.zoo.datasets.mnist_family import IdxDataset
from gridsearch.zoo.datasets.pins import PinnedFile

if TYPE_CHECKING:
    from gridsearch.records import Value

_INSIDE_PACKAGE = "usr/share/datasets/fashion-mnist"

_NAMES_AND_SIZES = (
    ("train-images-idx3-ubyte", 47_040_016),
    ("train-labels-idx1-ubyte", 60_008),
    ("t10k-images-idx3-ubyte", 7_840_016),
    ("t10k-labels-idx1-ubyte", 10_008),
)


def _pinned(*sums: str) -> tuple[PinnedFile, PinnedFile, PinnedFile, PinnedFile]:
    a, b, c, d = (PinnedFile(name, size, s) for (name, size), s in zip(_NAMES_AND_SIZES, sums, strict=True))
    return a, b, c, d


def _torchvision(dataset: str) -> Mirrors:
    """Return the addresses that torchvision has for one of its datasets."""

    def addresses() -> tuple[str, ...]:
        from gridsearch.zoo import torchvision

        return torchvision.mirrors(dataset)

    return Mirrors(addresses=addresses)


fmnist = IdxDataset(
    name="fmnist",
    files=_pinned(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    sources=(
        Folder(Path("/") / _INSIDE_PACKAGE, "the installed package dataset-fashion-mnist"),
        _torchvision("FashionMNIST"),
        DebianPackage(package="dataset-fashion-mnist", inside=_INSIDE_PACKAGE),
    ),
    licence="MIT",
    home="https://github.com/zalandoresearch/fashion-mnist",
)

mnist = IdxDataset(
    name="mnist",
    files=_pinned(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    class_names=tuple("0123456789"),
    sources=(_torchvision("MNIST"),),
    licence="CC BY-SA 3.0",
    home="http://yann.lecun.com/exdb/mnist",
)


kmnist = IdxDataset(
    name="kmnist",
    files=(  # the sums of the packed files are the published ones
        PinnedFile(
            "train-images-idx3-ubyte.gz",
            18_165_135,
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        ),
        PinnedFile(
            "train-labels-idx1-ubyte.gz",
            29_497,
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        ),
        PinnedFile(
            "t10k-images-idx3-ubyte.gz",
            3_041_136,
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        ),
        PinnedFile(
            "t10k-labels-idx1-ubyte.gz",
            5_120,
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    sources=(_torchvision("KMNIST"),),
    licence="CC BY-SA 4.0",
    home="http://codh.rois.ac.jp/kmnist",
)

cifar10 = CifarDataset(
    name="cifar10",
    files=(
        PinnedFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    sources=(Mirrors(addresses=lambda: ("https://www.cs.toronto.edu/~kriz/",)),),
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
)


def digits(root: Path) -> ImageData:  # noqa: ARG001  (part of the protocol; the images come with scikit-learn)
    """Read the 1,797 handwritten digits that come with scikit-learn: uint8 [1797, 1, 8, 8].

    Their sixteen levels of ink (0 to 16) become 0 to 255.  There is no test set of their own.

    Raises:
        DataError: scikit-learn, or its file of digits, is not there.
    """
    import numpy as np

    # Read without importing scikit-learn, which takes a second in every process: a row is 64 levels and a label.
    spec = importlib.util.find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(places or ["scikit-learn"]))) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    except OSError as error:
        raise DataError(f"digits: {path} cannot be read", hint="pip install scikit-learn") from error
    images = (table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")
    return ImageData(
        train_images=images[:, None],
        train_labels=table[:, -1],
        test_images=None,
        test_labels=None,
        class_names=tuple("0123456789"),
    )


def folder(root: Path, *, path: str, size: Value = "auto", channels: Value = "auto") -> ImageData:
    """Read a folder of images with one sub-folder for each class; see `FolderDataset`.

    Args:
        root: the data root, where decoded images are kept.
        path: the folder.
        size: "auto", a side in pixels, or "HEIGHTxWIDTH".
        channels: "auto", 1 or 3.

    Raises:
        DataError: it is not such a folder.
        UsageError: an option is not one of the above.
    """
    return FolderDataset(expanded(path))(root, size=size, channels=channels)
