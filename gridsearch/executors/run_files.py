"""Gets together what the workers of a run need of the runner's machine, and unpacks it on a node.

Between the catalog, which knows plug-ins and images, and `NodeWorker`.  A dataset travels as the images that the runner
has loaded and verified, whatever it was read from: nodes need no access to its source.  On the node each content is
compared with its SHA-256 before anything uses it; a trial's key names images and code besides, which the worker checks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.executors.node_messages import RunFiles
from gridsearch.executors.shipping import pickled
from gridsearch.plugins import MODELS, OBJECTIVES
from gridsearch.plugins.own_files import below, importable_locator, located, located_in, own_files
from gridsearch.records.study_kinds import FUNCTION
from gridsearch.zoo import datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import WorkerSetup


@dataclass(frozen=True, slots=True)
class PackedRun:
    """What travels with a run.

    Attributes:
        files: what there is.
        contents: each by its SHA-256.
        setup: of any of its workers, with locators that hold wherever the files are.
    """

    files: RunFiles
    contents: Mapping[str, bytes] = field(repr=False)
    setup: WorkerSetup


def pack_run(setup: WorkerSetup, own: Sequence[Plugin], images: Mapping[str, ImageData]) -> PackedRun:
    """Read what a run's workers need.

    Args:
        setup: of any of them.
        own: the models, or the function, that they use; installed ones too.
        images: by fingerprint.

    Raises:
        UsageError: a plug-in of the session cannot leave it.
    """
    contents: dict[str, bytes] = {}

    def keep(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        contents[digest] = content
        return digest

    group = OBJECTIVES if setup.kind == FUNCTION.name else MODELS
    here = own_files(own, group)
    objects = {plugin.name: plugin for plugin in own if not plugin.locator}
    files = RunFiles(
        objects=keep(pickled(objects)) if objects else "",
        code={str(path): keep(path.read_bytes()) for path in sorted(here.paths)},
        roots=tuple(map(str, here.roots)),
        images={print_: keep(datasets.as_sent(data, print_)) for print_, data in images.items()},
    )
    found = {plugin.locator: importable_locator(plugin, group) for plugin in own}
    setup = replace(
        setup,
        models={name: found.get(locator, locator) for name, locator in setup.models.items()},
        objective=found.get(setup.objective, setup.objective),
    )
    return PackedRun(files, contents, setup)


@dataclass(frozen=True, slots=True)
class UnpackedRun:
    """What a node has of a run.

    Attributes:
        setup: of a worker, with paths of the node.
        objects: see `RunFiles`; None where there are none.
        roots: folders that come first where modules are looked for.
    """

    setup: WorkerSetup
    objects: bytes | None = None
    roots: tuple[str, ...] = ()


def unpack_run(
    setup: WorkerSetup, files: RunFiles, folder: Path, content: Callable[[str], bytes]
) -> UnpackedRun:
    """Write what a worker needs into a folder of the node.

    Args:
        setup: with paths of the runner's machine.
        files: what there is.
        folder: of this run alone; what it holds already is written anew.
        content: gives the content of a SHA-256.

    Raises:
        DataError: a content is not what was announced.
        OSError: it cannot be written.
    """

    def verified(digest: str) -> bytes:
        found = content(digest)
        if hashlib.sha256(found).hexdigest() != digest:
            raise DataError("what came from the runner is not what it announced", hint="run again")
        return found

    code = folder / "code"
    for path, digest in files.code.items():
        _write(below(code, Path(path)), verified(digest))
    images = {}
    for fingerprint, digest in files.images.items():
        images[fingerprint] = str(folder / f"{digest}.npz")
        _write(Path(images[fingerprint]), verified(digest))
    setup = replace(
        setup,
        models=located_in(setup.models, code),
        objective=located(setup.objective, code),
        image_files=images,
    )
    return UnpackedRun(
        setup,
        verified(files.objects) if files.objects else None,
        tuple(str(below(code, Path(root))) for root in files.roots),
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
