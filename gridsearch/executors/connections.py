"""Messages over TCP between a runner and what it started on other machines; nobody without the key takes part.

Stands below transports whose engine starts processes and carries no messages, such as Slurm.  The runner listens, the
others connect.  Both sides send a random number first; from these and the key, which only their user can read, follow
two keys of this connection alone, one for each direction.  Each message bears its HMAC-SHA256 (RFC 2104) with its
number, so that none is made up, altered, left out, repeated or sent back.  What is sent can be read on its way: it is
no secret.  Messages are bytes; a peer that proves to be none of ours is hung up on before its first is looked at.

A connection ends when either process ends, or when the network has carried nothing for `SILENT_SECONDS`.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import queue
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SILENT_SECONDS = 60
"""A peer whose machine has answered nothing for so long, not even that it is there, is gone."""

_HANDSHAKE_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
_NONCE = 32
_HEADER = struct.Struct(">I32s")
_LONGEST_FIRST = 1 << 16
_LONGEST = 1 << 30


class ConnectionLost(Exception):
    """The connection has ended, or what came is not from a peer that knows the key."""


class Connection:
    """One side of a connection; one thread may receive, any may send.

    Args:
        link: a connected socket.
        key: what both sides know.
        runner: whether this is the runner's side.

    Raises:
        ConnectionLost: the other side said nothing that begins a connection.
    """

    def __init__(self, link: socket.socket, key: bytes, *, runner: bool) -> None:
        self._link = link
        _notice_silence(link)
        link.settimeout(_HANDSHAKE_SECONDS)
        mine = os.urandom(_NONCE)
        with _lost_by_errors():
            link.sendall(mine)
            theirs = self._read(_NONCE)
        nonces = mine + theirs if runner else theirs + mine
        keys = [hmac.digest(key, side + nonces, "sha256") for side in (b"runner", b"worker")]
        self._own, self._other = keys if runner else reversed(keys)
        self._sent = self._received = 0
        self._sending = threading.Lock()

    def send(self, message: bytes) -> None:
        """Send a message; waits while the network takes no more.

        Raises:
            ConnectionLost: the connection has ended.
        """
        with self._sending, _lost_by_errors():
            tag = _tag(self._own, self._sent, message)
            self._sent += 1
            self._link.sendall(_HEADER.pack(len(message), tag) + message)

    def receive(self) -> bytes:
        """Wait for a message and return it.

        Raises:
            ConnectionLost: the connection has ended, or the message is not the peer's next.
        """
        with _lost_by_errors():
            length, tag = _HEADER.unpack(self._read(_HEADER.size))
            if length > (_LONGEST if self._received else _LONGEST_FIRST):
                raise ConnectionLost("a message is too long")
            message = self._read(length)
        if not hmac.compare_digest(tag, _tag(self._other, self._received, message)):
            raise ConnectionLost("a message does not bear the key")
        if not self._received:
            self._link.settimeout(None)
        self._received += 1
        return message

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            chunk = self._link.recv(min(length - len(content), 1 << 20))
            if not chunk:
                raise ConnectionLost("the other side has ended it")
            content += chunk
        return bytes(content)

    def close(self) -> None:
        """End the connection; a thread that waits for a message is woken."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()


class Peer:
    """The runner's side of a connection: its calls never wait, threads of its own send and receive.

    Args:
        connection: the connection.
        arrived: takes each message, and None at the end, in another thread.
    """

    def __init__(self, connection: Connection, arrived: Callable[[Peer, bytes | None], None]) -> None:
        self._connection = connection
        self._arrived = arrived
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def begin(self) -> None:
        """Receive and send from now on."""
        for work in (self._receive, self._send):
            threading.Thread(target=work, daemon=True).start()

    def send(self, message: bytes) -> None:
        """Send a message some time soon; after the end it is lost."""
        self._waiting.put(message)

    def close(self) -> None:
        """End the connection, once what waits is sent."""
        self._waiting.put(None)

    def _send(self) -> None:
        with contextlib.suppress(ConnectionLost):
            while (message := self._waiting.get()) is not None:
                self._connection.send(message)
        self._connection.close()

    def _receive(self) -> None:
        with contextlib.suppress(ConnectionLost):
            while True:
                self._arrived(self, self._connection.receive())
        self._waiting.put(None)
        self._arrived(self, None)


class Listener:
    """Takes connections of those who know a key.

    Args:
        key: what both sides know.
        welcome: takes each connection with its first message, in another thread.
        host: the address to listen on; all of this machine's where it is empty.
        port: 0 for any that is free.

    Raises:
        OSError: nothing can be listened on there.
    """

    def __init__(
        self, key: bytes, welcome: Callable[[Connection, bytes], None], *, host: str = "", port: int = 0
    ) -> None:
        self._key = key
        self._welcome = welcome
        family = (
            socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET
        )
        self._socket = socket.create_server(
            (host, port), family=family, backlog=512, dualstack_ipv6=not host and family == socket.AF_INET6
        )
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                continue
            threading.Thread(target=self._greet, args=(link,), daemon=True).start()

    def _greet(self, link: socket.socket) -> None:
        try:
            connection = Connection(link, self._key, runner=True)
            first = connection.receive()
            connection.send(b"")  # proves that this side knows the key, too
        except ConnectionLost:
            link.close()
            return
        self._welcome(connection, first)


def connect(addresses: Sequence[tuple[str, int]], key: bytes, first: bytes) -> Connection:
    """Connect to a runner at the first of its addresses that answers and knows the key.

    Args:
        addresses: host and port of each.
        key: what both sides know.
        first: the first message.

    Raises:
        ConnectionLost: none does; names each with its reason.
    """
    failed = []
    for host, port in addresses:
        try:
            link = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        except OSError as error:
            failed.append(f"{host}:{port} ({error})")
            continue
        try:
            connection = Connection(link, key, runner=False)
            connection.send(first)
            connection.receive()
        except ConnectionLost as error:
            link.close()
            failed.append(f"{host}:{port} ({error})")
            continue
        return connection
    raise ConnectionLost(f"the runner cannot be reached at {', '.join(failed)}")


def host_and_port(text: str) -> tuple[str, int]:
    """Read "HOST", "HOST:PORT", "::1" or "[::1]:PORT"; the port is 0 where there is none.

    Raises:
        ValueError: the port is no whole number.
    """
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest.removeprefix(":") or 0)
    if text.count(":") > 1:  # an address of IPv6
        return text, 0
    host, _, port = text.partition(":")
    return host, int(port or 0)


def own_addresses() -> list[str]:
    """Return the names and addresses by which other machines may know this one, the likeliest first."""
    names = [socket.getfqdn(), socket.gethostname()]
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            found += [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; says which address the default route has
        found.append(probe.getsockname()[0])
    return list(dict.fromkeys([*names, *found]))


def _tag(key: bytes, number: int, message: bytes) -> bytes:
    return hmac.digest(key, number.to_bytes(8, "big") + message, "sha256")


@contextlib.contextmanager
def _lost_by_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error


def _notice_silence(link: socket.socket) -> None:
    """Let the system end the connection once the other machine is silent; both notice at about the same time."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tries = 4
    seconds = SILENT_SECONDS // (tries + 2)
    options = {
        "TCP_KEEPIDLE": 2 * seconds,
        "TCP_KEEPINTVL": seconds,
        "TCP_KEEPCNT": tries,
        "TCP_USER_TIMEOUT": 1000 * SILENT_SECONDS,
    }
    for name, value in options.items():
        if hasattr(socket, name):  # Linux has all of them
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
