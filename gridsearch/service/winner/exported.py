"""An exported model as `predict` uses it: from image files to classes, with nothing but the export's folder.

The graph is run by `graph_process`, so that no code of the model's author runs, no torch is needed, and one image costs
half a second of start instead of two.  What a file in the folder says is checked before it is used.
"""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.errors import ArtifactError, DataError, UsageError, escaped
from gridsearch.files import GRAPH, MODEL, MODEL_WEIGHTS, sha256_of
from gridsearch.service.winner.graph_process import GraphFailed, GraphProcess
from gridsearch.service.winner.onnx_graph import WrongGraph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from gridsearch.service.winner.onnx_graph import Run

SCHEMA = 1
"""Of model.json; what a newer version wrote is refused."""


_AGAIN = "best makes such a folder, <home>/<study>/best; bring back a copy of this one, or name the right one"
_BATCH = 64
_BATCH_BYTES = 32 << 20
"""A batch's pixels take no more: a graph's own tensors are many times as large."""
_MOST_PROBLEMS = 5
_MOST_DESCRIPTION = 64 << 20
_MOST_BYTES = 2 << 30
"""Of a graph: a file of this format is never larger.  Its weights are those of the other file."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Prediction:
    """What a model says of one image.

    Attributes:
        image: the path as it was given.
        label: the likeliest class, with its `probability`.
        probabilities: by class, in the order of the labels.
    """

    image: str
    label: str
    probability: float
    probabilities: Mapping[str, float]

    def __repr__(self) -> str:
        """Return one line: the likeliest class; the probabilities of a thousand would fill a screen."""
        return escaped(f"<Prediction of {self.image}: {self.label}, {100 * self.probability:.2f} %>")

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `predict --json`."""
        return {
            "image": self.image,
            "class": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An image that cannot be used, and why in a few words."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A model that `best` exported.

    Attributes:
        classes: names by label.
        channels: 1 or 3; likewise `height` and `width` of the images that the graph takes.
        levels: which values of images of more than 8 bits were black and white in training; None without such.
    """

    classes: tuple[str, ...]
    channels: int
    height: int
    width: int
    levels: tuple[float, float] | None
    _run: Run

    @classmethod
    def load(cls, folder: str | Path, *, by: str | None = None) -> ExportedModel:
        """Read a folder that `best` wrote.

        Args:
            folder: the folder.
            by: what runs its graph, see `GraphProcess`.

        Raises:
            UsageError: there is no such folder.
            ArtifactError: it is no export, or a file in it is missing, altered or of a newer version.
        """
        place = Path(folder)
        if not place.is_dir():
            raise UsageError(
                f"{folder}: no such folder", hint="predict takes the folder of a model, then images"
            )
        described = _described(place)
        try:
            classes = _names(described["classes"])
            given = {name: int(described["input"][name]) for name in ("channels", "height", "width")}
            black_white = described["input"].get("levels")
            levels = None if black_white is None else (float(black_white[0]), float(black_white[1]))
            files: dict[str, Any] = {name: described["files"][name]["sha256"] for name in described["files"]}
            reason = described["graph"].get("error")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _damaged(place / MODEL, f"{type(error).__name__}: {error}") from error
        if problem := _problem_of_input(**given, levels=levels):
            raise _damaged(place / MODEL, problem)
        for name, sha256 in files.items():
            _verify(place, name, sha256)
        if GRAPH not in files:
            raise ArtifactError(
                f"{place} holds no {GRAPH}"
                + (f": the network could not be exported ({reason})" if reason else ""),
                hint="model.safetensors can be loaded where the model's own code is",
            )
        try:
            content = (place / GRAPH).read_bytes()
            run = GraphProcess(content, takes=tuple(given.values()), classes=len(classes), by=by)
        except WrongGraph as error:
            raise ArtifactError(f"{place / GRAPH} does not fit {MODEL}: {error}", hint=_AGAIN) from error
        except (GraphFailed, OSError) as error:
            raise _damaged(place / GRAPH, str(error)) from error
        return cls(classes=classes, **given, levels=levels, _run=run)

    def predict(self, images: Sequence[str | Path]) -> list[Prediction | Refused]:
        """Return what each image shows, or why it cannot be used, in the order given; see `predictions`."""
        return list(self.predictions(images))

    def predictions(self, images: Iterable[str | Path]) -> Iterator[Prediction | Refused]:
        """Yield what each image shows, or why it cannot be used, in the order given, as soon as it is known.

        Any size and mode is taken: the image is turned as its camera noted, transparent pixels become white, and
        it is resized (bilinear) as the images of a folder are for training.

        Raises:
            ArtifactError: the model does not take images of 1 or 3 channels, or gives no numbers.
        """
        import numpy as np

        if self.channels not in (1, 3):
            raise ArtifactError(
                f"this model takes images of {self.channels} channels; an image file has 1 or 3",
                hint="run model.onnx from a program of your own",
            )
        size = min(_BATCH, max(1, _BATCH_BYTES // (4 * self.channels * self.height * self.width)))
        rest = map(str, images)
        while names := list(islice(rest, size)):
            read = [self._read(name) for name in names]
            good = [pixels for pixels in read if not isinstance(pixels, Refused)]
            rows = iter(self._probabilities(np.stack(good)) if good else ())
            for name, pixels in zip(names, read, strict=True):
                yield pixels if isinstance(pixels, Refused) else self._prediction(name, next(rows))

    def _read(self, name: str) -> np.ndarray | Refused:
        """Return an image's pixels, float32 [C, H, W] of 0 to 1."""
        import numpy as np

        from gridsearch.zoo.datasets import image_decoding, kinds

        # as in training: Pillow would give the thumbnail of some
        if (raw := kinds.raw_file(name)) is not None:
            return Refused(image=name, reason=kinds.sentence(raw))
        try:
            if Path(name).stat().st_size > image_decoding.MOST_BYTES:
                return Refused(image=name, reason=f"over {image_decoding.MOST_BYTES >> 20} MB")
            with image_decoding.quiet():
                content = Path(name).read_bytes()
                size = (self.height, self.width)
                pixels = image_decoding.decode(
                    content, size=size, channels=self.channels, levels=self.levels
                ).pixels
                return pixels if pixels.dtype == np.float32 else pixels / np.float32(255)
        except OSError as error:
            return Refused(image=name, reason=f"cannot be read: {error.strerror}")
        except image_decoding.NotUsable as error:
            return Refused(image=name, reason=str(error))

    def _probabilities(self, pixels_BCHW: np.ndarray) -> np.ndarray:
        """Return the probability of each class [B, Y]."""
        import numpy as np

        try:
            logits_BY = self._run(pixels_BCHW)
        except GraphFailed as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{GRAPH} does not run: {reason}", hint=_AGAIN) from error
        if not np.isfinite(logits_BY).all():
            raise ArtifactError(f"{GRAPH} gives values that are no numbers", hint=_AGAIN)
        powers = np.exp(logits_BY - logits_BY.max(1, keepdims=True))
        shares: np.ndarray = powers / powers.sum(1, keepdims=True)
        return shares

    def _prediction(self, name: str, shares_Y: np.ndarray) -> Prediction:
        top = int(shares_Y.argmax())
        by_class = {label: float(share) for label, share in zip(self.classes, shares_Y, strict=True)}
        return Prediction(
            image=name, label=self.classes[top], probability=float(shares_Y[top]), probabilities=by_class
        )


def unusable(images: Sequence[Refused]) -> DataError:
    """Return the error that says which images cannot be used, and why."""
    shown = "; ".join(f"{each.image}: {each.reason}" for each in images[:_MOST_PROBLEMS])
    more = len(images) - _MOST_PROBLEMS
    return DataError(shown + (f"; and {more} more" if more > 0 else ""))


def _described(place: Path) -> dict[str, Any]:
    path = place / MODEL
    try:
        _require_file(path, most=_MOST_DESCRIPTION)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{place} holds no {MODEL}: it is not a model that gridsearch exported", hint=_AGAIN
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise _damaged(path, "it names no schema")
    if schema > SCHEMA:
        raise ArtifactError(
            f"{path} was made by a newer gridsearch (schema {schema}, this one reads {SCHEMA})",
            hint="pip install --upgrade gridsearch",
        )
    found: dict[str, Any] = content
    return found


def _names(classes: object) -> tuple[str, ...]:
    """Return the names of classes.

    Raises:
        TypeError: they are no texts, or two are the same.
    """
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("classes are no list of names")
    if len(set(classes)) < len(classes):
        raise TypeError("two classes have one name")
    return tuple(classes)


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: {' '.join(reason.split())[:200]}", hint=_AGAIN)


def _verify(place: Path, name: str, sha256: object) -> None:
    """Refuse a file that is not the one that was exported."""
    if name not in (MODEL_WEIGHTS, GRAPH):
        raise _damaged(place / MODEL, f"it names a file {name!r}")
    path = place / name
    try:
        _require_file(path, most=_MOST_BYTES)
        found = sha256_of(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint=_AGAIN) from error
    if found != sha256:
        raise ArtifactError(f"{path} is not the file that was exported (its SHA-256 differs)", hint=_AGAIN)


def _require_file(path: Path, *, most: int) -> None:
    """Refuse what would be read without an end, or into more memory than an export takes."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise _damaged(path, "it is no file")
    if not facts.st_size:  # as files of the kernel say that have no end
        raise _damaged(path, "it is empty")
    if facts.st_size > most:
        raise _damaged(path, f"it has {facts.st_size / 1e9:.1f} GB, and at most {most / 1e9:.1f} are taken")


def _problem_of_input(
    *, channels: int, height: int, width: int, levels: tuple[float, float] | None
) -> str | None:
    """Return what is wrong with the images that a graph is said to take."""
    from gridsearch.zoo.datasets.image_decoding import MOST_PIXELS

    if min(channels, height, width) < 1 or channels * height * width > MOST_PIXELS:
        return f"it takes images of {channels}x{height}x{width}"
    if levels is not None and not (levels[0] < levels[1] and math.isfinite(levels[1] - levels[0])):
        return f"black is {levels[0]}, and white {levels[1]}"
    return None
