"""How a dataset offers groups of images: `--group NAME` asks that no split divides them.

`ImageData.groups` has the group of each training image.  A dataset with an option `group` (a column's name) is asked
for that one; any other gives its groups always: a folder its sub-folders, arrays their `groups`.  Groups are a part of
a dataset's fingerprint, so that others are another dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.errors import UsageError
from gridsearch.records.image_settings import GROUP
from gridsearch.zoo.datasets.scan import SUB_FOLDERS, TEST, TRAIN, VAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.scan import Found

_OF_FOLDERS = ("subfolder", "subfolders", "sub-folder", "sub-folders")
_OF_ARRAYS = ("groups", "group")
_NAMED = 3


def group_options(plugin: Plugin, name: str) -> dict[str, Value]:
    """Return the options with which a dataset groups its images so: none where it has no such option."""
    return {GROUP: name} if GROUP in plugin.options(("root", "path")) else {}


def check_groups(data: ImageData, name: str, *, dataset: str) -> None:
    """Refuse a grouping that a dataset does not have.

    Args:
        data: the dataset, loaded with `group_options`.
        name: of the grouping.
        dataset: its display name.

    Raises:
        UsageError: in one line.
    """
    source = data.reading.group_from if data.reading is not None else ""
    if data.groups is None:
        raise UsageError(
            f"--group {name}: dataset {dataset!r} has no groups of images",
            hint="a folder: dataset has them where classes have sub-folders, csv: and hf: have columns, and a dataset "
            "of your own may return `groups`, one for each training image",
        )
    known = _OF_FOLDERS if source == SUB_FOLDERS else () if source.startswith("column") else _OF_ARRAYS
    if known and name not in known:
        raise UsageError(f"--group {name}: dataset {dataset!r} is grouped by {known[0]} only")


def divided_groups(data: ImageData) -> str:
    """Return a warning that a split without `--group` divides a dataset's groups; "" where it names none, or one alone.

    Sub-folders of classes are no groups by themselves: they may stand for anything.
    """
    source = data.reading.group_from if data.reading is not None else ""
    if data.groups is None or source == SUB_FOLDERS:
        return ""
    name = source.partition("'")[2].rstrip("'") or _OF_ARRAYS[0]
    count = len(set(data.groups.tolist()))
    if count < 2:  # which no split keeps together
        return ""
    return (
        f"the images are of {count:,} groups ({source or name}), and images of one group may lie on both sides of a "
        f"split; --group {name} keeps them together"
    )


def divided_by_splits(files: Sequence[Found], source: str) -> tuple[str, ...]:
    """Return which groups lie in several of a dataset's own splits, in sentences.

    Args:
        files: the images.
        source: what their groups are; "" where there are none.
    """
    groups = {part: {f.group for f in files if f.part == part and f.group} for part in (TRAIN, VAL, TEST)}
    found = []
    for part, which, others in (
        (VAL, "validation", groups[TRAIN]),
        (TEST, "test", groups[TRAIN] | groups[VAL]),
    ):
        if source and (shared := sorted(groups[part] & others)):
            named = ", ".join(map(repr, shared[:_NAMED])) + (", ..." if shared[_NAMED:] else "")
            found.append(
                f"{len(shared)} of {len(groups[part])} groups of the {which} images ({source}: {named}) are groups of "
                f"other images too: the {which} accuracy will be better than on new groups"
            )
    return tuple(found)


def own_doubts(data: ImageData, *, grouped: bool) -> tuple[str, ...]:
    """Return which groups a dataset's own splits divide, in sentences.

    Args:
        data: the dataset.
        grouped: whether a grouping was asked for: only then sub-folders of classes are groups.
    """
    reading = data.reading
    if reading is None or (reading.group_from == SUB_FOLDERS) != grouped:
        return ()
    return reading.divided
