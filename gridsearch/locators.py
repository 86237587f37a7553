"""Locators that name where images or networks come from ("csv:labels.csv", "timm:resnet18"), and no code of a user's.

Stands below all who tell these from "my_net.py:Net", whose code runs only where the user names it.
"""

from __future__ import annotations

from pathlib import PurePath

DATASETS = ("folder", "csv", "npz", "hf")
"""Kinds of datasets that are found by a path; what follows "hf:" may be a name of Hugging Face's hub too."""

LIBRARIES = ("timm", "torchvision")
"""Packages whose networks are models."""


def placed(locator: str) -> tuple[str, str] | None:
    """Return kind and path of a dataset that is named by where it lies; None for any other."""
    kind, colon, rest = locator.partition(":")
    return (kind, rest) if colon and kind in DATASETS else None


def from_library(locator: str) -> tuple[str, str] | None:
    """Return package and name of a network that a package brings; None for any other model."""
    kind, colon, rest = locator.partition(":")
    return (kind, rest) if colon and kind in LIBRARIES else None


def short_name(kind: str, path: str) -> str:
    """Return how a dataset that is named by its path is shown: "folder:pets" of "/data/pets"."""
    return f"{kind}:{PurePath(path).name or '/'}"
