"""Between a scanned folder or list of images and its arrays: hash every file, look them up in the cache, else decode.

What is kept is named by the content of all files and by the options, so that it is never out of date.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import PIL

from gridsearch.errors import DataError
from gridsearch.plugins import ImageData, Reading
from gridsearch.zoo.datasets import checks, deep_pixels, image_decoding, kept_images, kinds
from gridsearch.zoo.datasets.cache import Beat, exclusive
from gridsearch.zoo.datasets.folder_paths import is_named_as_image
from gridsearch.zoo.datasets.image_groups import divided_by_splits
from gridsearch.zoo.datasets.kept_images import Decoded
from gridsearch.zoo.datasets.scan import TRAIN, VAL, Found, Skipped, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LONGEST_SIDE = 64
"""Pixels to which the longer side is limited where the size is chosen for the user."""

_READER = 1
"""Part of every fingerprint; raised when the same files would give other arrays."""

_DEEP_READER = "fractions 1"
"""Likewise, where images have more than 8 bits."""

_CLEAR_READER = "fractions 2"
"""Likewise, where some of these have transparency."""

_FORM = 9
"""Raised when what is kept beside the arrays changes."""

_AT_ONCE = 256
"""Files in flight: decoding runs ahead of the checks by no more."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A file with its content's size and hash."""

    found: Found
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options."""

    size: tuple[int, int] | None
    channels: int | None
    memory_limit: int


def decoded(
    tree: Tree, cache: Path, *, size: tuple[int, int] | None, channels: int | None, memory_limit: int
) -> Decoded:
    """Return the images of a folder or a list, decoded now or before.

    Args:
        tree: which files they are in.
        cache: where decoded images are kept; a cache that cannot be written is done without.
        size: (H, W), or None to choose it.
        channels: 1, 3, or None to choose it.
        memory_limit: bytes.

    Raises:
        DataError: see `FolderDataset`.
    """
    wanted = _Wanted(size, channels, memory_limit)
    files = _hashed(tree)
    kept = cache / f"{_key(wanted, files, tree)}.npz"
    if (found := kept_images.read(kept)) is not None:
        return found
    try:
        with exclusive(cache) as beat:
            if (found := kept_images.read(kept)) is None:  # another process may have decoded them meanwhile
                found = _decode_all(wanted, tree, files, beat)
                kept_images.keep(found, kept)
            return found
    except OSError as error:
        found = found or _decode_all(wanted, tree, files, lambda: None)
        note = f"decoded images are not kept: {error.filename or cache}: {error.strerror or error}"
        return Decoded(dataclasses.replace(found.data, notes=(*found.data.notes, note)), found.fingerprint)


def examined(tree: Tree, *, memory_limit: int) -> tuple[ImageData, tuple[str, ...]]:
    """Read every file anew, and return the images and each file that should be one and is not used.

    Raises:
        DataError: see `FolderDataset`.
    """
    found = _decode_all(_Wanted(None, None, memory_limit), tree, _hashed(tree), lambda: None)
    return found.data, tuple(tree.skipped.problems)


def _hashed(tree: Tree) -> list[_Hashed]:
    hashed = []
    for found, entry in zip(tree.files, _each(_hash, tree.files), strict=True):
        if isinstance(entry, str):
            tree.skipped.add(found.relative, entry)
        else:
            hashed.append(entry)
    return hashed


def _hash(found: Found) -> _Hashed | str:
    try:
        if found.size() > image_decoding.MOST_BYTES:
            return f"over {image_decoding.MOST_BYTES >> 20} MB"
        content = found.read()
        return _Hashed(found, len(content), hashlib.sha256(content).hexdigest())
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _key(wanted: _Wanted, files: Sequence[_Hashed], tree: Tree) -> str:
    parts = [
        _READER,
        _DEEP_READER,
        _FORM,
        PIL.__version__,
        wanted.size,
        wanted.channels,
        wanted.memory_limit,
        tree.skipped.notes(),
        tree.skipped.count,
        tree.skipped.cautions,
        sorted(tree.where.items()),
        tree.group_from,
    ]
    names = [entry.found.relative for entry in files]  # messages name them
    return _sum([*parts, names, _content(files, tree), tree.classes])


def _content(files: Sequence[_Hashed], tree: Tree) -> list[tuple[object, ...]]:
    """Return what files hold and are: of one in a folder its path says that, of one in a list the list."""
    if not tree.listed:
        return [(entry.found.relative, entry.size, entry.sha256) for entry in files]
    return [
        (entry.size, entry.sha256, tree.classes[f.label], f.part, f.group)
        for entry in files
        for f in [entry.found]
    ]


def _sum(content: object) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _decode_all(wanted: _Wanted, tree: Tree, files: Sequence[_Hashed], beat: Beat) -> Decoded:
    with image_decoding.quiet():
        looked = _inspect(files, beat)
        size = wanted.size or _chosen_size([found[0] for e, found in looked if not e.found.test])
        ranges = [found[1] for _, found in looked if found[1] is not None]
        levels = deep_pixels.levels(ranges, beside_8_bits=len(ranges) < len(looked)) if ranges else None
        used, pictures = _decode(wanted, size, levels, files, tree, beat)
    _check_classes(tree, used)
    arrays = [picture.pixels for picture in pictures]
    channels = wanted.channels or max(len(array) for array in arrays)
    kind = np.result_type(*{array.dtype for array in arrays})
    _check_memory(wanted, tree, len(arrays), (channels, *size), kind.itemsize)
    top = max(float(array.max()) * (1 if array.dtype == np.uint8 else 255) for array in arrays)
    if 0 < top <= checks.DARK:
        tree.skipped.cautions.append(
            f"no pixel is above {top:.3g} of 255, so all images are all but black: if {top:.3g} is meant as white, "
            "save them with white as 255"
        )
    changes = _changes(pictures, channels, kind, levels, tree.skipped)
    train = [i for i, entry in enumerate(used) if not entry.found.test]
    test = [i for i, entry in enumerate(used) if entry.found.test]
    labels = np.array([entry.found.label for entry in used], np.int64)
    parts = [
        (_stacked(arrays, rows, (channels, *size), kind), labels[rows], rows)
        for rows in ([train, test] if tree.has_test else [train])
    ]
    own = [entry.found for entry in used if not entry.found.test]
    val = np.array([i for i, found in enumerate(own) if found.part == VAL], np.int64)
    warnings = checks.cautions(
        [part[:2] for part in parts],
        tree.classes,
        lambda is_test, i: used[parts[is_test][2][i]].found.relative,
        val.tolist(),
    )
    data = ImageData(
        train_images=parts[0][0],
        train_labels=parts[0][1],
        test_images=parts[1][0] if tree.has_test else None,
        test_labels=parts[1][1] if tree.has_test else None,
        class_names=tree.classes,
        notes=tree.skipped.notes(),
        reading=Reading(
            changes=changes,
            test_from=tree.test_from or "",
            val_from=tree.where.get(VAL, ""),
            group_from=tree.group_from,
            warnings=(*tree.skipped.cautions, *warnings),
            levels=levels,
            divided=divided_by_splits([entry.found for entry in used], tree.group_from),
        ),
        val_indices=val if len(val) else None,
        groups=_groups(own) if tree.group_from else None,
    )
    content: list[object] = [_READER, size, channels, _content(used, tree)]
    if kind != np.uint8:
        change = image_decoding.Change
        clear = any({change.DEEP, change.FLATTENED} <= picture.changes for picture in pictures)
        content += [_CLEAR_READER if clear else _DEEP_READER, levels]
    return Decoded(data, _sum(content))


def _inspect(
    files: Sequence[_Hashed], beat: Beat
) -> list[tuple[_Hashed, tuple[tuple[int, int], deep_pixels.Range | None]]]:
    """Return size and range of every file that is an image, by its header where that is enough."""

    def inspect(entry: _Hashed) -> tuple[tuple[int, int], deep_pixels.Range | None] | None:
        if kinds.raw_file(entry.found.relative):
            return None
        try:
            return image_decoding.inspect(entry.found.read())
        except (image_decoding.NotUsable, OSError):
            return None  # decoding says so, later

    found = zip(files, _each(inspect, files, beat), strict=True)
    return [(entry, looked) for entry, looked in found if looked is not None]


def _chosen_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Choose (H, W) by those of the training images as `FolderDataset` says."""
    if not sizes:
        return 1, 1  # no image at all, which is an error later, with what was found instead
    (height, width), count = Counter(sizes).most_common(1)[0]
    if 2 * count <= len(sizes):
        height = round(statistics.median(h for h, _ in sizes))
        width = round(statistics.median(w for _, w in sizes))
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _decode(
    wanted: _Wanted,
    size: tuple[int, int],
    levels: deep_pixels.Levels | None,
    files: Sequence[_Hashed],
    tree: Tree,
    beat: Beat,
) -> tuple[list[_Hashed], list[image_decoding.Picture]]:
    """Decode what can be decoded; returns the files that were used, and what became of them."""

    def one(entry: _Hashed) -> image_decoding.Picture | str:
        if (raw := kinds.raw_file(entry.found.relative)) is not None:
            return kinds.sentence(raw)
        try:
            content = entry.found.read()
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise DataError(f"{entry.found.relative} changed while it was read", hint="start again")
            return image_decoding.decode(content, size=size, channels=wanted.channels, levels=levels)
        except image_decoding.NotUsable as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    used, pictures, held = [], [], 0
    for entry, result in zip(files, _each(one, files, beat), strict=True):
        if isinstance(result, str):
            name = entry.found.relative
            tree.skipped.add(
                name, result, expected=result == image_decoding.NO_IMAGE and not is_named_as_image(name)
            )
            continue
        used.append(entry)
        pictures.append(result)
        held += result.pixels.nbytes
        if held > wanted.memory_limit:
            _check_memory(wanted, tree, len(files), (wanted.channels or 3, *size), result.pixels.itemsize)
    return used, pictures


def _changes(
    pictures: Sequence[image_decoding.Picture],
    channels: int,
    kind: np.dtype[Any],
    levels: deep_pixels.Levels | None,
    skipped: Skipped,
) -> tuple[str, ...]:
    """Return what was done to how many images, in the words of one line; the notes say more."""
    counts = Counter(change for picture in pictures for change in picture.changes)
    for change, count in sorted(counts.items(), key=lambda item: list(image_decoding.Change).index(item[0])):
        skipped.more.append(image_decoding.described(change, count, levels))
    deep_ones = counts[image_decoding.Change.DEEP]
    if kind != np.uint8 and deep_ones < len(pictures):
        skipped.cautions += deep_pixels.dark_ones(
            [p.pixels for p in pictures if p.pixels.dtype != np.uint8], levels
        )
        skipped.more.append(
            f"{deep_ones} of {len(pictures)} images {'has' if deep_ones == 1 else 'have'} more than 8 bits, "
            "the others 8: if that goes by class, "
            "networks may learn it in place of what is shown"
        )
    grey = sum(len(picture.pixels) < channels for picture in pictures)
    if grey:
        skipped.more.append(
            f"{grey} of {len(pictures)} images {'is' if grey == 1 else 'are'} grey, the others in colour"
        )
    found = [f"{counts[change]} {change}" for change in image_decoding.Change if counts[change]]
    found += [f"{skipped.count} skipped"] if skipped.count else []
    return (*found, *([f"{', '.join(skipped.unused)} not used"] if skipped.unused else []))


def _check_classes(tree: Tree, used: Sequence[_Hashed]) -> None:
    """Refuse a class without images to train on, or without images in a folder that is there for it."""
    for part in tree.where:
        counts = Counter(entry.found.label for entry in used if entry.found.part == part)
        empty = [name for label, name in enumerate(tree.classes) if not counts[label]]
        if not empty or (tree.listed and part != TRAIN and counts):
            continue
        where = f"{tree.folders.get(part, part)}/".lstrip("/")
        names = ", ".join(repr(where + name) for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        first = next(iter(tree.skipped.lines), "")
        what = "what is no class, or put images into it" if len(empty) < len(tree.classes) else ""
        raise DataError(
            f"{tree.title}: no usable image in {names}" + (f" ({first})" if first else ""),
            hint=tree.layout if tree.listed or not what else f"move out of the folder {what}",
        )


def _groups(files: Sequence[Found]) -> np.ndarray:
    """Return the group of each file as 0 to G-1; one that belongs to none is a group by itself."""
    names = [found.group or f"/{i}" for i, found in enumerate(files)]
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def _check_memory(wanted: _Wanted, tree: Tree, count: int, shape: tuple[int, int, int], each: int) -> None:
    """Refuse so many images of a shape, of so many bytes for each value."""
    need = count * shape[0] * shape[1] * shape[2] * each
    if need > wanted.memory_limit:
        raise DataError(
            f"{tree.title}: {count} images of {'x'.join(map(str, shape))} need "
            f"{need / 1e9:.1f} GB of memory, expected at most {wanted.memory_limit / 1e9:.1f} GB",
            hint="make them smaller: --set data.size=32, or --set data.channels=1",
        )


def _stacked(
    arrays: list[np.ndarray], rows: Sequence[int], shape: tuple[int, int, int], kind: np.dtype[Any]
) -> np.ndarray:
    """Stack [C, H, W] arrays to [N, C, H, W]; a grey one among coloured ones is repeated.

    Bytes among fractions become fractions too.
    """
    stacked = np.empty((len(rows), *shape), kind)
    for i, row in enumerate(rows):
        array = arrays[row]
        stacked[i] = array if array.dtype == kind else array / np.float32(255)
    return stacked


def _each(work: Callable[[In], Out], items: Sequence[In], beat: Beat = lambda: None) -> Iterator[Out]:
    """Map over a few threads, in order, never far ahead of the one who reads."""
    todo = iter(items)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while some := list(islice(todo, _AT_ONCE)):
            for result in pool.map(work, some):
                beat()
                yield result
