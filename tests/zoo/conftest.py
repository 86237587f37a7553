"""Small real idx files, a folder of images, and a real web server on the loopback, for the tests of the datasets."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsearch.zoo.datasets.mnist_family import IdxDataset
from gridsearch.zoo.datasets.pins import PinnedFile
from tests.zoo.painted import paint

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class TinyIdx:
    """Four idx files with images of 4x5 pixels and three classes, and the dataset that pins them."""

    contents: dict[str, bytes]

    def pins(self) -> tuple[PinnedFile, ...]:
        return tuple(PinnedFile(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in self.contents.items())

    def dataset(self, **changes: Any) -> IdxDataset:
        about: dict[str, Any] = {
            "name": "tiny",
            "files": self.pins(),
            "class_names": ("a", "b", "c"),
            "image_shape": (1, 4, 5),
            "home": "https://example.org/tiny",
        }
        return IdxDataset(**about | changes)

    def write(self, folder: Path, *, gz: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(content) if gz else content)
        return folder

    def routes(self) -> dict[str, Any]:
        return {f"/{name}.gz": gzip.compress(content) for name, content in self.contents.items()}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny() -> TinyIdx:
    random = np.random.default_rng(0)
    parts = []
    for count in (30, 12):
        parts += [random.integers(0, 256, (count, 4, 5)), np.arange(count) % 3]
    return TinyIdx(dict(zip(NAMES, map(idx_bytes, parts), strict=True)))


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """A web server on the loopback; a route is bytes to send, or a function that answers."""

    address: str
    routes: dict[str, bytes | Answer]
    asked: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.asked.append(self.path)
            route = there.routes.get(self.path)
            try:
                if route is None:
                    self.send_error(404)
                elif isinstance(route, bytes):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(route)))
                    self.end_headers()
                    self.wfile.write(route)
                else:
                    route(self)
            except OSError:
                pass  # the client went away, which some tests want

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.block_on_close = False
    there = Server(f"http://127.0.0.1:{http.server_port}/", {})
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield there
    there.closing.set()
    http.shutdown()
    http.server_close()


@pytest.fixture
def pets(tmp_path):
    """Two classes with three images each."""
    for i in range(3):
        paint(tmp_path / "pets" / "cat" / f"{i}.png", seed=i)
        paint(tmp_path / "pets" / "dog" / f"{i}.png", seed=10 + i)
    return tmp_path / "pets"
