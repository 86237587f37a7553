"""A connection carries messages of those who know the key, and nothing else."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
from contextlib import closing, suppress

import pytest

from gridsearch.executors.connections import ConnectionLost, Listener, Peer, connect, host_and_port

KEY = b"k" * 32


@pytest.fixture
def runner():
    """A listener that takes every connection, and what it has heard."""
    heard: queue.SimpleQueue = queue.SimpleQueue()
    peers = []

    def welcome(connection, first):
        peers.append(Peer(connection, lambda _, message: heard.put(message)))
        heard.put(first)
        peers[-1].begin()

    listener = Listener(KEY, welcome, host="127.0.0.1")
    listener.heard, listener.peers = heard, peers
    yield listener
    listener.close()
    for peer in peers:
        peer.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ("", 0)),
        ("login1", ("login1", 0)),
        ("10.0.0.1:5000", ("10.0.0.1", 5000)),
        ("fe80::1", ("fe80::1", 0)),
        ("[fe80::1]", ("fe80::1", 0)),
        ("[::1]:5000", ("::1", 5000)),
    ],
)
def test_an_address_may_be_one_of_ipv6(text, found):
    assert host_and_port(text) == found


def at(listener):
    return [("127.0.0.1", listener.port)]


def test_messages_of_any_size_arrive_whole_and_in_order_both_ways(runner):
    worker = connect(at(runner), KEY, b"hello")
    large = os.urandom(3_000_000)
    for message in (b"", b"one", large):
        worker.send(message)
    assert [runner.heard.get(timeout=60) for _ in range(4)] == [b"hello", b"", b"one", large]
    for message in (large, b"", b"two"):
        runner.peers[0].send(message)
    assert [worker.receive() for _ in range(3)] == [large, b"", b"two"]
    worker.close()
    assert runner.heard.get(timeout=60) is None


def test_the_end_of_the_runner_s_side_is_noticed_once_what_waits_is_sent(runner):
    with closing(connect(at(runner), KEY, b"hello")) as worker:
        runner.heard.get(timeout=60)
        runner.peers[0].send(b"last")
        runner.peers[0].close()
        assert worker.receive() == b"last"
        with pytest.raises(ConnectionLost):
            worker.receive()


def test_nobody_takes_part_without_the_key_on_either_side(runner):
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        connect(at(runner), b"other" * 8, b"hello")
    assert runner.heard.empty()
    with closing(connect(at(runner), KEY, b"hello")):  # and those who know it are still heard
        assert runner.heard.get(timeout=60) == b"hello"


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.0\r\n\r\n", b"x" * 5000, struct.pack(">I", 0xFFFFFFFF) * 20, b""]
)
def test_whatever_a_stranger_says_nothing_of_it_is_taken(runner, said):
    hung_up_on = suppress(OSError)  # while it speaks
    with hung_up_on, socket.create_connection(("127.0.0.1", runner.port)) as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(1 << 16):  # a random number, and then the end
            pass
    assert runner.heard.empty()


@pytest.mark.parametrize("change", ["altered", "repeated", "reflected"])
def test_a_message_changed_on_its_way_ends_the_connection(runner, change):
    """Between the two stands somebody who passes on bytes, and changes them once the connection is made."""
    between = socket.create_server(("127.0.0.1", 0))
    worker_side: queue.SimpleQueue = queue.SimpleQueue()

    def relay():
        link, _ = between.accept()
        with link, socket.create_connection(("127.0.0.1", runner.port)) as onward:
            pass_on(onward, link, 32)
            pass_on(link, onward, 32)
            message(link, onward)  # the hello
            message(onward, link)  # and its answer
            content = message(link, onward if change != "altered" else None)
            if change == "reflected":
                link.sendall(content)
                return worker_side.get(timeout=60)
            onward.sendall(content if change == "repeated" else content[:-1] + bytes([content[-1] ^ 1]))
            while onward.recv(1 << 16):
                pass
        return None

    def pass_on(source, target, length):
        content = b""
        while len(content) < length:
            content += source.recv(length - len(content))
        if target is not None:
            target.sendall(content)
        return content

    def message(source, target):
        head = pass_on(source, target, 36)
        return head + pass_on(source, target, struct.unpack_from(">I", head)[0])

    thread = threading.Thread(target=relay)
    thread.start()
    worker = connect([between.getsockname()], KEY, b"hello")
    worker.send(b"epoch 3")
    if change == "reflected":
        with pytest.raises(ConnectionLost, match="does not bear the key"):
            worker.receive()
        worker_side.put("done")
    else:
        wanted = [b"hello", None] if change == "altered" else [b"hello", b"epoch 3", None]
        assert [runner.heard.get(timeout=60) for _ in wanted] == wanted
    thread.join()
    worker.close()
    between.close()
