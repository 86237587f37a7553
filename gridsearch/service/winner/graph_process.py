"""Runs an exported graph in a process of its own, with bounded memory and time: its file may have been altered.

Between `exported`, which reads images, and `onnx_graph`, which evaluates.  A graph of standard operators still says
how large its tensors are; that it asks for too much, takes too long or crashes is then an error of one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
import weakref
from typing import IO, TYPE_CHECKING, Final, TypeVar

from gridsearch.service.winner import onnx_graph
from gridsearch.service.winner.onnx_graph import WrongGraph

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

Done = TypeVar("Done")

START_SECONDS = 60.0
"""For starting and reading the graph; more for its megabytes."""
IMAGE_SECONDS = 10.0
"""For each image; the reference evaluator takes one or two for a large network."""
_LEAST_MEMORY: Final = 4 << 30
_MEGABYTES_A_SECOND: Final = 10

_LENGTH: Final = struct.Struct(">Q")
_GOOD, _WRONG, _FAILED = b"+", b"?", b"-"
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gridsearch.service.winner.graph_process import serve; serve()"
)


class GraphFailed(Exception):
    """A graph that cannot be read or run; says why in one line."""


class GraphProcess:
    """A process that runs one graph; it ends with this object.

    Args:
        content: of the ONNX file.
        takes: (C, H, W) of the images that it is said to take.
        classes: Y.
        by: "onnxruntime" or "reference"; default: the first that is here.

    Raises:
        WrongGraph: it takes other images.
        GraphFailed: it is no graph, one that this program does not export, or it asks for too much.
    """

    def __init__(
        self, content: bytes, *, takes: tuple[int, ...], classes: int, by: str | None = None
    ) -> None:
        self._classes = classes
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.close = weakref.finalize(self, _end, self._process)
        head = {"memory": most_memory(), "takes": takes, "classes": classes, "by": by or onnx_graph.runtime()}
        seconds = START_SECONDS + len(content) / (_MEGABYTES_A_SECOND << 20)
        self._ask(json.dumps(head).encode(), content, seconds=seconds)

    def __call__(self, pixels_BCHW: np.ndarray) -> np.ndarray:
        """Return the logits [B, Y], float64, of pixels [B, C, H, W].

        Raises:
            GraphFailed: it does not run, or not within memory and time.
        """
        import numpy as np

        content = np.ascontiguousarray(pixels_BCHW, np.float32).tobytes()
        answer = self._ask(content, seconds=START_SECONDS + IMAGE_SECONDS * len(pixels_BCHW))
        return np.frombuffer(answer, np.float64).reshape(len(pixels_BCHW), self._classes)

    def _ask(self, *messages: bytes, seconds: float) -> bytes:
        """Send messages and return the content of the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, which reading says
                for message in messages:
                    _send(self._process.stdin, message)
            answer = _receive(self._process.stdout.fileno(), deadline)
        except TimeoutError:
            self.close()
            raise GraphFailed(f"it takes longer than {seconds:.0f} s") from None
        except EOFError:
            raise GraphFailed(self._how_it_ended()) from None
        kind, content = answer[:1], answer[1:]
        if kind == _GOOD:
            return content
        raise (WrongGraph if kind == _WRONG else GraphFailed)(content.decode(errors="replace"))

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"its process ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process was killed by signal {-code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            stream.close()  # type: ignore[union-attr]


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _receive(descriptor: int, deadline: float) -> bytes:
    """Read one message.

    Raises:
        EOFError: the other end is closed.
        TimeoutError: it has not come in time.
    """

    def exactly(count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(descriptor, min(count - len(found), 1 << 20))
            if not chunk:
                raise EOFError
            found += chunk
        return bytes(found)

    return exactly(*_LENGTH.unpack(exactly(_LENGTH.size)))


def serve() -> None:
    """Serve a `GraphProcess` on the standard streams: this is the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started this decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer

    def read() -> bytes:
        (length,) = _LENGTH.unpack(sys.stdin.buffer.read(_LENGTH.size) or sys.exit())
        return sys.stdin.buffer.read(length)

    head = json.loads(read())
    _limit_memory(head.pop("memory"))
    takes, content = tuple(head.pop("takes")), read()
    prepared = _answer(answers, lambda: onnx_graph.prepare(content, takes=takes, **head), lambda _: b"")
    while prepared is not None:
        _answer(answers, lambda: prepared(_images(read(), takes)), lambda logits_BY: logits_BY.tobytes())


def _images(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return np.frombuffer(content, np.float32).reshape(-1, *shape)


def _answer(answers: IO[bytes], work: Callable[[], Done], content_of: Callable[[Done], bytes]) -> Done | None:
    """Do some work and send what comes of it, or why it failed; return it."""
    try:
        done = work()
    except WrongGraph as error:
        _send(answers, _WRONG + str(error).encode(errors="replace"))
    except Exception as error:  # noqa: BLE001 - a graph may fail in any way
        _send(answers, _FAILED + f"{type(error).__name__}: {error}".encode(errors="replace"))
    else:
        _send(answers, _GOOD + content_of(done))
        return done
    return None


def most_memory() -> int:
    """Return how many bytes a graph may take: half of the machine's memory, `_LEAST_MEMORY` at least."""
    with contextlib.suppress(OSError, ValueError):
        return max(_LEAST_MEMORY, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return _LEAST_MEMORY


def _limit_memory(most: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        # Not the address space, of which threads and allocators reserve more than they use.
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
