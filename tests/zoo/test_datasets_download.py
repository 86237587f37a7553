"""Mirrors: what a server may do wrong, two at once, and a process killed half way."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.download import Unavailable, download
from gridsearch.zoo.datasets.download_sources import Mirrors

LABELS = "/t10k-labels-idx1-ubyte.gz"  # the smallest file, asked for first


def mirrors(*addresses, timeout=5.0):
    return (Mirrors(addresses=lambda: addresses, timeout=timeout),)


def hang(server, *, after=b"", announce=None):
    """Answer with the beginning of a file, then fall silent."""

    def answer(handler):
        handler.send_response(200)
        if announce:
            handler.send_header("Content-Length", str(announce))
        handler.end_headers()
        handler.wfile.write(after)
        handler.wfile.flush()
        server.closing.wait(30)

    return answer


def test_a_mirror_gives_the_files(tiny, tmp_path, server):
    server.routes |= tiny.routes()
    dataset = tiny.dataset(sources=mirrors(server.address))
    assert dataset.fetch(tmp_path) == server.address
    assert dataset(tmp_path).train_images.shape == (30, 1, 4, 5)


@pytest.mark.parametrize(
    "kind", ["missing", "other bytes", "cut short", "endless", "a page", "refused", "redirect"]
)
def test_the_next_mirror_is_asked_when_one_is_wrong(tiny, tmp_path, server, kind):
    good = tiny.routes()

    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(good[LABELS])))
        handler.end_headers()
        handler.wfile.write(good[LABELS][:-5])

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", "file:///etc/hostname")
        handler.end_headers()

    bad = {f"/bad{path}": content for path, content in good.items()}
    wrong = {
        "missing": None,
        "other bytes": good["/train-labels-idx1-ubyte.gz"],
        "cut short": cut,
        "endless": endless,
        "a page": b"<html>please log in</html>",
        "redirect": redirect,
    }
    bad[f"/bad{LABELS}"] = wrong.get(kind)
    server.routes |= {f"/good{path}": content for path, content in good.items()} | bad
    first = "http://127.0.0.1:9/" if kind == "refused" else f"{server.address}bad/"
    told = []
    dataset = tiny.dataset(sources=mirrors(first, f"{server.address}good/"))
    assert dataset.fetch(tmp_path, say=told.append) == f"{server.address}good/"
    assert len(told) == 1
    assert first in told[0]
    assert dataset.verify(tmp_path) == ()
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == sorted(tiny.contents)


@pytest.mark.parametrize("after", [b"", b"some"], ids=["silent from the start", "silent in the middle"])
def test_a_server_that_falls_silent_is_given_up(tiny, tmp_path, server, after):
    server.routes |= tiny.routes() | {LABELS: hang(server, after=after, announce=100)}
    with pytest.raises(DataError, match=r"labels-idx1-ubyte.gz: (no answer|too slow) within 0.5 s|timed out"):
        tiny.dataset(sources=mirrors(server.address, timeout=0.5)).fetch(tmp_path)


def test_a_server_that_trickles_is_given_up_though_it_never_falls_silent(tmp_path, server):
    def trickle(handler):
        handler.send_response(200)
        handler.end_headers()
        while not server.closing.wait(0.05):
            handler.wfile.write(b"x")

    server.routes["/file"] = trickle
    with pytest.raises(Unavailable, match=r"too slow within 0\.5 s"):
        download(f"{server.address}file", tmp_path / "x", limit=1 << 20, timeout=0.5, beat=lambda: None)


def test_more_bytes_than_expected_are_refused_before_they_are_read(tmp_path, server):
    server.routes["/file"] = hang(server, announce=10**12)
    with pytest.raises(Unavailable, match="1000000000000 bytes, expected 100 at most"):
        download(f"{server.address}file", tmp_path / "x", limit=100, timeout=5, beat=lambda: None)


def test_fewer_bytes_than_announced_are_refused(tmp_path, server):
    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"some")

    server.routes["/file"] = cut
    with pytest.raises(Unavailable, match="cut short, expected 100 bytes, found 4"):
        download(f"{server.address}file", tmp_path / "x", limit=100, timeout=5, beat=lambda: None)


def test_only_the_web_is_downloaded_from(tmp_path):
    with pytest.raises(Unavailable, match="not an http address"):
        download("file:///etc/hostname", tmp_path / "x", limit=100, timeout=5, beat=lambda: None)


def test_when_no_source_answers_each_is_named_and_the_way_by_hand(tiny, tmp_path, server):
    with pytest.raises(DataError) as refusal:
        tiny.dataset(sources=mirrors(f"{server.address}a/", f"{server.address}b/")).fetch(tmp_path / "root")
    assert "/a/: t10k-labels-idx1-ubyte.gz: Not Found; " in refusal.value.message
    assert "/b/: t10k-labels-idx1-ubyte.gz: Not Found" in refusal.value.message
    assert "gridsearch data fetch tiny --from DIR" in refusal.value.hint
    assert "https://example.org/tiny" in refusal.value.hint
    assert "\n" not in refusal.value.message + refusal.value.hint
    assert not (tmp_path / "root").exists()


def test_a_torchvision_that_does_not_import_is_one_more_source_without_files(tiny, tmp_path):
    def broken():
        raise ImportError("torchvision is not installed")

    with pytest.raises(DataError, match="torchvision's mirrors: torchvision is not installed"):
        tiny.dataset(sources=(Mirrors(addresses=broken),)).fetch(tmp_path)


FETCH = """
    import sys
    from pathlib import Path
    from gridsearch.zoo.datasets.mnist_family import IdxDataset
    from gridsearch.zoo.datasets.pins import PinnedFile
    from gridsearch.zoo.datasets.download_sources import Mirrors

    root, address, *pins = sys.argv[1:]
    pins = [p.split(":") for p in pins]
    files = tuple(PinnedFile(name, int(size), sha) for name, size, sha in pins)
    sources = (Mirrors(addresses=lambda: (address,), timeout=20),)
    about = dict(name="tiny", class_names=("a", "b", "c"), image_shape=(1, 4, 5))
    dataset = IdxDataset(files=files, sources=sources, **about)
    print(dataset.fetch(Path(root), say=print))
"""


def start_fetch(tiny, root, server):
    pins = [f"{p.name}:{p.size}:{p.sha256}" for p in tiny.pins()]
    command = [sys.executable, "-u", "-c", textwrap.dedent(FETCH), str(root), server.address, *pins]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_at_once_one_downloads_and_the_other_waits_for_it(tiny, tmp_path, server):
    both_run = threading.Event()
    content = tiny.routes()[LABELS]

    def slowly(handler):
        both_run.wait(20)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    server.routes |= tiny.routes() | {LABELS: slowly}
    first = start_fetch(tiny, tmp_path, server)
    while not server.asked:
        time.sleep(0.01)
    second = start_fetch(tiny, tmp_path, server)
    assert "waiting" in second.stdout.readline()
    both_run.set()
    out = []
    for process in (first, second):  # not communicate: it would miss what readline has buffered already
        with process.stdout as stream:
            out.append(stream.read())
        assert process.wait(timeout=30) == 0
    assert server.address in out[0]
    assert "verified" in out[1]
    assert sorted(server.asked) == sorted(tiny.routes())
    assert tiny.dataset().verify(tmp_path) == ()


def test_a_process_killed_half_way_leaves_no_half_file_and_the_next_one_cleans_up(tiny, tmp_path, server):
    big = "/train-images-idx3-ubyte.gz"
    routes = tiny.routes()
    server.routes |= routes | {big: hang(server, after=routes[big][:100], announce=len(routes[big]))}
    killed = start_fetch(tiny, tmp_path, server)
    staged = tmp_path / "tiny"
    while not any(p.stat().st_size == 100 for p in staged.glob(f".partial-*/*{big}")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(staged.glob("*ubyte*"))
    server.routes |= routes
    dataset = tiny.dataset(sources=mirrors(server.address))
    dataset.fetch(tmp_path)
    assert dataset.verify(tmp_path) == ()
    assert sorted(p.name for p in staged.iterdir()) == sorted(tiny.contents)
