"""Which folders in a folder of images are splits and which are classes: by their names and what lies in them.

A split is never taken for a class: where names and content do not say the same, the folder is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.folder_paths import (
    Place,
    Skipped,
    entries,
    is_named_as_image,
    left_alone,
    natural,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LAYOUT = (
    "a folder of images has one sub-folder per class, or train/ and test/ with one sub-folder per class each"
)

SORT = "sort the images into CLASS/ or train/CLASS/ and test/CLASS/, or list them in a CSV file (path,label): csv:FILE"

OUTSIDE = "not in the folder of a class"

TRAIN, TEST, VAL = "train", "test", "val"
_ROLES = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainingset", "traindata", "trainval"), TRAIN),
    **dict.fromkeys(("test", "testing", "tst", "testset", "testdata"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev", "devset", "eval", "evaluation"), VAL),
}
_THINGS = {"train", "training", "valid", "dev"}
"""Names of splits that may be names of classes as well, where nothing else speaks of splits."""

_WORDS = """
fold folds split part partition subset set batch chunk shard holdout treino teste treinamento entrenamiento prueba
entrainement entraînement essai trainings trainingsdaten testdaten trein addestramento prova 训练 测试 訓練 训练集
测试集 テスト 学習 обучение тест
"""
_SPLIT_WORDS = frozenset({*_WORDS.split(), *_ROLES})
"""Words that name a split of a dataset, where all of several folders bear one and hold folders of the same names."""

_KINDS = frozenset(
    {"class", "category", "label", "grade", "level", "stage", "type", "kind", "degree", "score"}
)
"""Words that are numbered in the names of classes."""

_DEEPEST = 4
"""Folders in folders that are looked through for the one that holds the images."""


@dataclass(frozen=True, slots=True)
class Split:
    """A folder that holds class folders.

    Attributes:
        where: the folder.
        part: what its images are for: `TRAIN`, `VAL` or `TEST`.
    """

    where: Place
    part: str


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """A folder whose name speaks of a split; what else the name says is its stem: ("seg",) of seg_train."""

    place: Place
    role: str
    stem: tuple[str, ...]
    inside: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Root:
    """The folder as the user named it, for refusals."""

    folder: Path

    def refuse(self, problem: str, hint: str = LAYOUT) -> DataError:
        return DataError(f"folder of images {str(self.folder)!r}: {problem}", hint=hint)


def splits(folder: Path, base: Place, skipped: Skipped) -> tuple[Split, ...]:
    """Return the folders that hold class folders: one, or one for training with those for validation and test.

    Args:
        folder: as the user named it.
        base: the same, resolved.
        skipped: gets what is left out beside them.

    Raises:
        DataError: splits and classes cannot be told apart, or a split holds no classes.
    """
    root = _Root(folder)
    where = _innermost(root, base, skipped)
    folders, links = _sorted_out(root, where)
    named = [found for place in (*folders, *links) if (found := _named(place)) is not None]
    train = _train(root, named)
    group = _group(train, named) if train is not None else []
    if train is None or not group:
        return _without_partner(root, where, train, folders, named, skipped)
    if not train.inside:
        flat = [one.place.name for one in (train, *group) if not one.inside]
        raise root.refuse(
            f"{_listed(flat)} hold{'s' * (len(flat) == 1)} no folders of classes",
            "put the images of each class into a folder of its own, no link: train/CLASS/, test/CLASS/",
        )
    used = {train.place: TRAIN}
    for part, what in ((VAL, "validation"), (TEST, "test")):
        alike = [one.place for one in group if one.role == part and (one.inside or part == TEST)]
        if len(alike) > 1:
            names = _listed([place.name for place in alike])
            raise root.refuse(f"{names} are both named as {what} images", "keep one of them in the folder")
        used |= dict.fromkeys(alike, part)
    for place in sorted(entries(where, skipped), key=lambda place: natural(place.shown)):
        if place in folders and place not in used:
            skipped.unused.append(f"{place.shown}/")
            reason = f"not used; it stands beside {train.place.name}/"
            skipped.add(f"{place.shown}/", reason, expected=True)
        elif place in links and place not in used:
            skipped.add(f"{place.shown}/", "a link to a folder")
        elif place not in used:
            outside(place, skipped)
    return tuple(Split(_unwrapped(place, skipped), part) for place, part in used.items())


def outside(place: Place, skipped: Skipped) -> None:
    """Note a file that lies beside the folders of classes as skipped."""
    skipped.add(place.shown, OUTSIDE, expected=not is_named_as_image(place.name))


def _innermost(root: _Root, base: Place, skipped: Skipped) -> Place:
    """Follow folders that hold nothing but one folder, as archives leave them, to the one with the images."""
    where = base
    for _ in range(_DEEPEST):
        inside, links = _sorted_out(root, where)
        if len(inside) != 1 or links or _loose(where) or not _holds_classes(inside[0]):
            break
        if role_of(inside[0].name) and not _stem(inside[0].name):
            break
        for place in entries(where, skipped):
            if place != inside[0]:
                outside(place, skipped)
        where = inside[0]
    if where is not base:
        skipped.more.append(f"the images are those in {where.shown}/")
    return where


def _holds_classes(place: Place) -> bool:
    """Whether a folder holds folders rather than images: several, or one that does so itself."""
    folders = _folders(place)
    return len(folders) > 1 or (len(folders) == 1 and not _loose(place) and bool(_folders(folders[0])))


def _unwrapped(place: Place, skipped: Skipped | None = None) -> Place:
    """Follow a split that holds one folder with the classes in it: seg_train/seg_train/."""
    folders = _folders(place)
    if len(folders) != 1 or _loose(place) or len(_folders(folders[0])) < 2:
        return place
    if skipped is not None:
        skipped.more.append(f"the images are those in {folders[0].shown}/")
        list(entries(place, skipped))  # what is hidden beside it counts
    return folders[0]


def _sorted_out(root: _Root, where: Place) -> tuple[list[Place], list[Place]]:
    """Return the folders in a folder, and the links to folders; a split that is a broken link is refused."""
    folders: list[Place] = []
    links: list[Place] = []
    for place in entries(where, Skipped()):
        is_link = place.path.is_symlink()
        if place.path.is_dir():
            (links if is_link else folders).append(place)
        elif is_link and role_of(place.name) in (TRAIN, TEST) and not _stem(place.name):
            raise root.refuse(f"{place.name} is a link to nothing", "fix the link, or remove it")
    return sorted(folders, key=lambda p: natural(p.name)), sorted(links, key=lambda p: natural(p.name))


def _named(place: Place) -> _Named | None:
    role = role_of(place.name)
    if role is None:
        return None
    inside = frozenset(inner.name for inner in _folders(_unwrapped(place)))
    return _Named(place, role, _stem(place.name), inside)


def _train(root: _Root, named: Sequence[_Named]) -> _Named | None:
    """Return the folder of training images, if there is one."""
    found = [one for one in named if one.role == TRAIN and (not one.stem or any(_group(one, [one, *named])))]
    if len(found) > 1:
        names = _listed([one.place.name for one in found])
        raise root.refuse(f"{names} are both named as training images", "keep one of them in the folder")
    return found[0] if found else None


def _group(train: _Named, named: Iterable[_Named]) -> list[_Named]:
    """Return the other splits: named alike, or of the same classes where one name has no stem."""
    return [
        one
        for one in named
        if one.role != TRAIN
        and (one.stem == train.stem or ((not one.stem or not train.stem) and bool(one.inside & train.inside)))
    ]


def _without_partner(
    root: _Root,
    where: Place,
    train: _Named | None,
    folders: Sequence[Place],
    named: Sequence[_Named],
    skipped: Skipped,
) -> tuple[Split, ...]:
    """Return the one folder of classes where no two splits stand beside each other; refuse what is unclear."""
    names = {place.name for place in folders}
    if train is not None:
        others = sorted(names - {train.place.name}, key=natural)
        if not others and train.inside:
            return (Split(_unwrapped(train.place), TRAIN),)
        if others and len(train.inside) > 1:
            raise root.refuse(
                f"{train.place.name}/ holds folders of classes, and beside it stand {_listed(others)}",
                f"move what is no split out of the folder; or put the images right into {train.place.name}/ "
                "if it is a class",
            )
    _refuse_lone_splits(root, named, names)
    _refuse_splits_of_a_class(root, folders)
    _compare_inner_folders(root, folders, skipped)
    return (Split(where, TRAIN),)


def _refuse_lone_splits(root: _Root, named: Sequence[_Named], names: set[str]) -> None:
    """Refuse a folder of validation or test images, by its name, where there is none of training images."""
    for one in named:
        beside = sorted(names - {one.place.name}, key=natural)
        unclear = not one.stem and "".join(words_of(one.place.name)) not in _THINGS
        if one.role != TRAIN and (unclear or one.inside & names):
            raise root.refuse(
                f"{one.place.name}/ is named as a split, "
                + (f"and beside it stand {_listed(beside)}" if beside else "and no train/ is beside it"),
                "put the folders of the classes into train/; or rename it if it is a class",
            )


def _refuse_splits_of_a_class(root: _Root, folders: Sequence[Place]) -> None:
    for place in folders:
        roles = {role_of(inner.name) for inner in _folders(place) if not _stem(inner.name)}
        if TRAIN in roles and len(roles - {None}) > 1:
            if len(folders) > 1 and [one for one in folders if _any_image(one)] == [place]:
                raise _beside_labels(root, place, [one.name for one in folders if one != place])
            raise root.refuse(
                f"{place.name}/ holds splits, expected them outside of the classes",
                "put them the other way round: train/CLASS/, test/CLASS/",
            )


def _beside_labels(root: _Root, images: Place, others: Sequence[str]) -> DataError:
    """Return the refusal of images/train/ beside labels/train/, where the latter holds no images."""
    train = next(inner for inner in _folders(images) if role_of(inner.name) == TRAIN)
    without = f"{_listed(sorted(others, key=natural))} hold{'s' * (len(others) == 1)} no images"
    if _folders(train):
        return root.refuse(f"{images.name}/ holds splits, and {without}", f"name it: folder:{images.path}")
    return root.refuse(
        f"{images.name}/{train.name}/ holds no folders of classes, and {without}; files of labels, as object "
        "detection has them, are not read",
        SORT,
    )


def _compare_inner_folders(root: _Root, folders: Sequence[Place], skipped: Skipped) -> None:
    """Refuse or note folders that all hold folders of the same names: these may be the classes."""
    inside = [frozenset(inner.name for inner in _folders(place)) for place in folders]
    if len(inside) < 2 or len(inside[0]) < 2 or len(set(inside)) > 1:
        return
    alike = (
        f"{_listed([place.name for place in folders])} hold folders of the same names "
        f"({_listed(sorted(inside[0], key=natural))})"
    )
    if all(_SPLIT_WORDS.intersection(words_of(place.name)) for place in folders):
        raise root.refuse(
            f"{alike}, so they seem to be parts of one dataset, not classes",
            "put the folders of the classes into train/ and test/; or rename what is a class",
        )
    if _numbered_alike([place.name for place in folders]):
        skipped.cautions.append(f"{alike}: if these are the classes, put them into train/ and test/")
    else:
        skipped.more.append(f"{alike}, which are not taken as classes")


def _folders(place: Place) -> list[Place]:
    with os.scandir(place.path) as found:  # which asks the disk once for a folder, not once for a file
        inside = [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
    return [place.child(path) for path in inside if not left_alone(path.name)]


def _loose(place: Place) -> bool:
    """Whether files lie right in a folder that may be images, going by their names."""
    return any(is_named_as_image(inner.name) for inner in entries(place, Skipped()))


def _any_image(place: Place) -> bool:
    """Whether an image lies in a folder at any depth, going by the names of files."""
    return any(is_named_as_image(name) for _, _, names in os.walk(place.path) for name in names)


def words_of(name: str) -> list[str]:
    """Return the words of a name: ["seg", "train"] of seg_train, SegTrain and "seg train 2"."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())


def role_of(name: str) -> str | None:
    """Return the part of a dataset that a name speaks of, `TRAIN`, `VAL` or `TEST`; None where it speaks of none."""
    roles = [_ROLES[word] for word in words_of(name) if word in _ROLES]
    return roles[0] if len(roles) == 1 else None


def _stem(name: str) -> tuple[str, ...]:
    return tuple(word for word in words_of(name) if word not in _ROLES)


def _numbered_alike(names: Sequence[str]) -> bool:
    """Whether names are one name with other numbers or letters behind it: site1 and site2, camera_a and camera_b."""
    stems = {tuple(word for word in words_of(name) if len(word) > 1) for name in names}
    return len(stems) == 1 and bool(stem := stems.pop()) and not _KINDS.intersection(stem)


def _listed(names: Sequence[str]) -> str:
    shown = [f"{name}/" for name in names[:4]] + (["..."] if len(names) > 4 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
