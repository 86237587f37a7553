"""Datasets of Hugging Face's library: `hf:NAME` of its hub, or a folder that it wrote, or Parquet files.

The one module that knows the library `datasets` (extra `hf`).  It gives rows; images are taken out of them as the
bytes that they were stored as, and become arrays as those of a folder do.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.errors import DataError, UsageError, said
from gridsearch.files import sha256_of
from gridsearch.zoo.datasets.class_labels import is_missing
from gridsearch.zoo.datasets.file_images import MEMORY_LIMIT, FileImages
from gridsearch.zoo.datasets.folder_paths import Skipped
from gridsearch.zoo.datasets.layout import TEST, TRAIN, VAL
from gridsearch.zoo.datasets.listed_images import Row, Table, part_of, tree_of
from gridsearch.zoo.datasets.scan import Found
from gridsearch.zoo.hub import offline_if_unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.scan import Tree

_LAYOUT = "a dataset has a column of images and one of labels (a ClassLabel, words or whole numbers)"
_PACKAGE = "pip install 'gridsearch[hf]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell(Found):
    """An image in a table."""

    content: Callable[[], bytes]

    def size(self) -> int:
        """Return how many bytes it holds; they are read with the table."""
        return 0

    def read(self) -> bytes:
        """Return what it holds."""
        return self.content()


@dataclass(frozen=True, slots=True)
class HubDataset(FileImages):
    """A dataset that Hugging Face's library reads; callable as a dataset.

    Splits are used as the dataset has them; others than train, validation and test are left out, and that is said.

    Attributes:
        name: of the hub, or the path of a folder of `save_to_disk`, of a folder of Parquet files, or of one.
        memory_limit: bytes; more are refused.
    """

    name: str
    memory_limit: int = MEMORY_LIMIT

    def __call__(
        self,
        root: Path,
        *,
        image: Value = "auto",
        label: Value = "auto",
        group: Value = "auto",
        config: Value = None,
        revision: Value = None,
        size: Value = "auto",
        channels: Value = "auto",
    ) -> ImageData:
        """Read the images: uint8 [N, C, H, W], or float32 of 0..1 where some have more than 8 bits.

        Args:
            root: the data root, where the decoded images are kept.
            image: the column of images; "auto" finds the only one.
            label: the column of labels; "auto" finds the only ClassLabel, else the one of a usual name.
            group: the column of groups; "auto" finds it by its name.
            config: which of the dataset's configurations.
            revision: which version of a dataset of the hub: a tag, a branch, or the hash of a commit.
            size: "auto", a side in pixels, or "HEIGHTxWIDTH".
            channels: "auto", 1 or 3.

        Raises:
            DataError: it is not there, cannot be fetched, or has no images with one label each.
            UsageError: an option is not one of the above.
        """
        rows = {"image": image, "label": label, "group": group, "config": config, "revision": revision}
        return self.with_fingerprint(root, **rows, size=size, channels=channels).data

    def tree(
        self,
        root: Path,
        *,
        image: Value = "auto",
        label: Value = "auto",
        group: Value = "auto",
        config: Value = None,
        revision: Value = None,
    ) -> Tree:
        """Return which images there are; see `__call__`."""
        title = f"hf {self.name!r}"
        skipped = Skipped()
        splits = _by_part(_splits(self.name, root, config, revision), title, skipped)
        features = dict(splits[TRAIN][1].features)
        table = Table(title, tuple(features), _LAYOUT)
        pictures = _image_column(table, features, image)
        labels = _label_column(table, features, label)
        groups = table.column("group", group)
        names = _class_names(features[labels])
        order = dict.fromkeys(names)
        rows: list[Row] = []
        for part, (name, split) in splits.items():
            lacking = next((c for c in (pictures, labels, groups) if c not in (None, *split.features)), None)
            if lacking is not None:
                raise table.refuse(
                    f"split {name!r} has no column {lacking!r}",
                    hint="load the dataset, take this split out, and save_to_disk the others; or add the column",
                )
            unlabelled = 0
            cells = _cells(split, pictures)
            own_names = _class_names(split.features[labels]) if names else ()
            order |= dict.fromkeys(own_names)
            belongs = split[groups] if groups is not None else [""] * len(split)
            for i, (kind, own) in enumerate(zip(split[labels], belongs, strict=True)):
                word = _word(kind, own_names or names)
                if word is None:
                    unlabelled += 1
                    continue
                found = _Cell(Path(), f"{name}[{i}]", 0, part, _group(own), content=cells(i))
                rows.append(Row(f"{name}[{i}]", word, found))
            if unlabelled:
                skipped.more.append(
                    f"{unlabelled} of {len(split)} rows of {name} have no label and are left out"
                )
        return tree_of(
            table,
            rows,
            skipped,
            group_from="" if groups is None else f"column {groups!r}",
            order=tuple(order),
            where={part: f"split {name!r}" for part, (name, _) in splits.items()},
        )


def library() -> Any:
    """Return the library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"hf: needs Hugging Face's datasets ({said(error)})", hint=_PACKAGE) from error
    return datasets


def _splits(name: str, root: Path, config: Value, revision: Value) -> Mapping[str, Any]:
    """Return the splits of a dataset by their names.

    Raises:
        DataError: it is not there, or cannot be fetched.
    """
    datasets, path = library(), Path(name)
    local, title = path.exists(), f"hf {name!r}"
    if path.is_absolute() and not local:
        raise DataError(f"{title} is not there", hint=_LAYOUT)
    with _quiet(datasets), _offline(datasets, local=local):
        try:
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                found = datasets.load_from_disk(name)
            elif local:
                _check_numbers(path, title)
                kind, named = ("parquet", {"data_files": name}) if path.is_file() else (name, {})
                named |= {} if config is None else {"name": str(config)}
                found = datasets.load_dataset(kind, cache_dir=str(_kept(path, root)), **named)
            else:
                found = datasets.load_dataset(
                    name, None if config is None else str(config), revision=revision
                )
        except (MemoryError, DataError):
            raise
        except Exception as error:
            raise _cannot_load(datasets, error, title, local=local) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def _check_numbers(path: Path, title: str) -> None:
    """Refuse Parquet files that number the same classes differently: the library takes one file's names for all.

    Raises:
        DataError: there are such.
    """
    from pyarrow import parquet

    read_schema: Any = parquet.read_schema
    first: dict[str, tuple[Path, list[str]]] = {}
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else ():
        noted = (read_schema(file).metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(noted).get("info", {}).get("features", {})
        for column, feature in features.items():
            if not isinstance(feature, dict) or "names" not in feature:
                continue
            other, names = first.setdefault(column, (file, feature["names"]))
            if names != feature["names"]:
                raise DataError(
                    f"{title}: {other.relative_to(path)} and {file.relative_to(path)} have different classes in "
                    f"column {column!r}: {', '.join(names)[:60]}; {', '.join(feature['names'])[:60]}",
                    hint="write them with the same ClassLabel, or their labels as words",
                )


def _kept(path: Path, root: Path) -> Path:
    """Return where the library keeps what it has read of a file or folder: by its content.

    The library itself knows files by their times, which a copy may bear as well.
    """
    found = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    content = "\n".join(f"{sha256_of(each)} {each.relative_to(path).as_posix()}" for each in found)
    return root / "hf" / hashlib.sha256(os.fsencode(content)).hexdigest()[:32]


def _cannot_load(datasets: Any, error: Exception, title: str, *, local: bool) -> DataError:
    if type(error).__name__ == "DatasetGenerationError" and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what went wrong, and not only that something did
    words = " ".join(said(error).split())[:200]
    if "onfig name is missing" in words or "BuilderConfig" in words:
        return DataError(f"{title}: {words}", hint="name one: --set data.config=NAME")
    if local:
        return DataError(f"{title} cannot be read: {words}", hint=_LAYOUT)
    if isinstance(error, ConnectionError | datasets.exceptions.DatasetNotFoundError | OSError):
        hint = (
            "where there is a network, load it once, or bring a folder of its Parquet files here: hf:PATH; "
            "names are those of the hub (mnist, uoft-cs/cifar10)"
        )
        return DataError(f"{title} is not here, and cannot be fetched from the hub: {words}", hint=hint)
    return DataError(f"{title} cannot be read: {words}", hint=_LAYOUT)


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Load without progress bars, which belong to no line of ours."""
    shown = datasets.utils.are_progress_bars_disabled
    if shown():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


@contextmanager
def _offline(datasets: Any, *, local: bool) -> Iterator[None]:
    """Let the library look at what is here alone where the hub is not needed or not reached."""
    with offline_if_unreachable(local=local):
        import huggingface_hub.constants as hub

        before = datasets.config.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE = before


def _by_part(splits: Mapping[str, Any], title: str, skipped: Skipped) -> dict[str, tuple[str, Any]]:
    """Return the splits to train on, to validate and to test with, each with its name."""
    found: dict[str, tuple[str, Any]] = {}
    if len(splits) == 1 and part_of(next(iter(splits))) in (None, TRAIN):
        return {TRAIN: next(iter(splits.items()))}
    for name, split in splits.items():
        part = part_of(name)
        if part is None:
            skipped.unused.append(f"split {name!r}")
            skipped.add(f"split {name!r}", f"not used, {len(split)} rows", expected=True)
        elif part in found:
            raise DataError(f"{title}: splits {found[part][0]!r} and {name!r} may both be the {part} split")
        else:
            found[part] = (name, split)
    if TRAIN not in found:
        names = ", ".join(map(repr, splits))
        raise DataError(f"{title} has no split to train on: it has {names}", hint=_LAYOUT)
    return {part: found[part] for part in (TRAIN, VAL, TEST) if part in found}


def _image_column(table: Table, features: Mapping[str, Any], given: Value) -> str:
    images = [name for name, feature in features.items() if _holds_images(feature)]
    if given == "auto" and len(images) == 1:
        return images[0]
    if given == "auto" and not images:
        held = ", ".join(f"{name} {_kind(feature)}" for name, feature in features.items())[:200]
        raise table.refuse(
            f"no column holds images: {held}", hint="images are an Image, or the bytes of a file"
        )
    if given == "auto":
        raise table.refuse(
            f"columns {' and '.join(map(repr, images))} hold images",
            hint=f"name one: --set data.image={images[0]}",
        )
    found = table.needed("image", given, usual="")
    if found not in images:
        raise table.refuse(f"column {found!r} holds no images but {_kind(features[found])}")
    return found


def _label_column(table: Table, features: Mapping[str, Any], given: Value) -> str:
    labelled = [name for name, feature in features.items() if hasattr(feature, "names")]
    found = labelled[0] if given == "auto" and len(labelled) == 1 else table.needed("label", given)
    kind = features[found]
    if not hasattr(kind, "names") and not str(getattr(kind, "dtype", "")).startswith(
        ("int", "uint", "string", "large_string", "bool")
    ):
        several = isinstance(kind, list) or hasattr(kind, "feature")
        raise table.refuse(
            f"column {found!r} holds {_kind(kind)}"
            + (": targets of several labels are not trained here" if several else ", no classes"),
            hint="a label is a ClassLabel, a word or a whole number: --set data.label=COLUMN",
        )
    return found


def _class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel; none of another column."""
    return tuple(getattr(feature, "names", None) or ())


def _word(cell: Any, names: Sequence[str]) -> str | None:
    """Return the class that a cell names, by these names where it is a number; None for no label.

    The names are those of the cell's own split: two splits may number the same classes differently.
    """
    if cell is None or isinstance(cell, str) or not names:
        return None if cell is None or is_missing(str(cell)) else str(cell)
    return names[cell] if 0 <= cell < len(names) else None


def _group(cell: Any) -> str:
    """Return the group that a cell names; "" for none."""
    return "" if cell is None or is_missing(str(cell)) else str(cell)


def _holds_images(feature: Any) -> bool:
    if type(feature).__name__ == "Image" or getattr(feature, "dtype", "") in ("binary", "large_binary"):
        return True
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def _cells(split: Any, column: str) -> Callable[[int], Callable[[], bytes]]:
    """Return what gives, for a row, the function that reads its image's bytes."""
    datasets = library()
    if type(split.features[column]).__name__ == "Image":
        split = split.cast_column(column, datasets.Image(decode=False))
    split = split.select_columns([column])

    def cell(i: int) -> Callable[[], bytes]:
        def read() -> bytes:
            value = split[i][column]
            if isinstance(value, dict):
                content, path = value["bytes"], value["path"]
                if content is None and path:
                    return Path(path).read_bytes()
                value = content
            if value is None:
                raise FileNotFoundError(2, "there is no image in this row")
            return bytes(value)

        return read

    return cell
