"""What only the session has travels to the workers, or is refused in one line."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import threading
import types

import pytest

from gridsearch import plugins
from gridsearch.errors import PluginError, UsageError
from gridsearch.executors.local import LocalExecutor
from gridsearch.executors.shipping import Received, pickled
from gridsearch.importing import importable, imported_now
from gridsearch.plugins import Plugin
from gridsearch.records import (
    LogText,
    Pack,
    PackEnded,
    TrialFailed,
    TrialFinished,
)
from tests.executors.function_calls import lane, setup


def sent(objects, tmp_path):
    path = tmp_path / "objects"
    path.write_bytes(pickled(objects))
    return Received(path.open("rb"))


def test_a_closure_and_a_class_of_the_session_are_made_again_with_what_they_hold(tmp_path):
    scale = 3

    class Local:
        def __init__(self, x):
            self.x = x * scale

    plugin = plugins.of_object(lambda params, seed: {"y": Local(params["a"]).x}, name="f")
    assert plugin.locator == ""
    received = sent({"f": plugin}, tmp_path)
    assert list(received) == ["f"]
    assert received["f"].target({"a": 2}, 0) == {"y": 6}
    assert (received["f"].name, received["f"].source) == (plugin.name, plugin.source)


def test_threads_that_send_at_the_same_time_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_by_hand", types.ModuleType("made_by_hand"))
    plugin, wrong = plugins.of_object(lambda params, seed: {"y": 1.0}, name="f"), []

    def send():
        try:
            for _ in range(5):
                pickled({"f": plugin})
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_cannot_leave_the_process_is_refused_in_one_line_with_the_way_out():
    lock = threading.Lock()
    plugin = plugins.of_object(lambda params, seed: lock, name="f")
    with pytest.raises(
        UsageError, match="f cannot be sent to a worker process: TypeError: cannot pickle"
    ) as caught:
        pickled({"f": plugin})
    assert 'executor="inline"' in caught.value.hint


class _Refuses:
    def __reduce__(self):
        return _fails, ()


def _fails():
    raise RuntimeError("not here")


def test_what_cannot_be_made_again_is_told_when_it_is_asked_for_and_not_before(tmp_path):
    path = tmp_path / "objects"
    path.write_bytes(pickle.dumps(_Refuses()))
    received = Received(path.open("rb"))
    with pytest.raises(PluginError, match="RuntimeError: not here"):
        received.get("f")


def test_a_module_that_only_this_process_knows_travels_by_value(tmp_path, monkeypatch):
    source = tmp_path / "elsewhere.py"
    source.write_text("BASE = 40\ndef f(params, seed):\n    return {'y': BASE + params['a']}\n")
    spec = importlib.util.spec_from_file_location("known_here_alone", source)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "known_here_alone", module)
    spec.loader.exec_module(module)
    assert not importable("known_here_alone")
    plugin = plugins.of_object(module.f)
    assert plugin.locator == ""
    content = pickled({plugin.name: plugin})
    monkeypatch.delitem(sys.modules, "known_here_alone")
    path = tmp_path / "objects"
    path.write_bytes(content)
    assert Received(path.open("rb"))[plugin.name].target({"a": 2}, 0) == {"y": 42}


def test_modules_on_the_path_are_importable_and_half_imported_or_made_ones_are_not(tmp_path, monkeypatch):
    (tmp_path / "on_the_path.py").write_text(
        "from gridsearch.importing import importable\nHALF = importable(__name__)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("on_the_path")
    monkeypatch.delitem(sys.modules, "on_the_path", raising=False)
    monkeypatch.setitem(sys.modules, "on_the_path", module)
    assert not module.HALF, "it was still being imported"
    assert importable("on_the_path")
    assert importable("json.decoder")
    assert not importable("__main__")
    monkeypatch.setitem(sys.modules, "__mp_main__", sys.modules["__main__"])
    assert not importable("__mp_main__"), "the script in a process of multiprocessing's"
    assert not importable("never heard of")
    monkeypatch.setitem(sys.modules, "made", types.ModuleType("made"))
    assert not importable("made")
    shadow = types.ModuleType("json")
    shadow.__spec__ = importlib.util.spec_from_loader("json", loader=None)
    shadow.__file__ = str(tmp_path / "json.py")
    monkeypatch.setitem(sys.modules, "json", shadow)
    assert not importable("json"), "another process finds another module of that name"


def test_a_plug_in_that_is_being_imported_is_known_by_its_name(tmp_path):
    (tmp_path / "seen.py").write_text(
        "from gridsearch.importing import imported_now\nSEEN = imported_now()\ndef f(params, seed): return SEEN\n"
    )
    locator = f"{tmp_path / 'seen.py'}:f"
    assert plugins.find(locator, plugins.OBJECTIVES).target({}, 0) == locator
    assert imported_now() is None


@pytest.mark.end_to_end
def test_workers_call_a_function_of_the_session_and_fail_alone_where_it_cannot_be_made_again():
    def adds(params, seed):
        print("in a worker:", os.getpid())
        return {"y": params["a"] + seed}

    plugin, events = plugins.of_object(adds), []
    broken = Plugin(name="broken", locator="", target=_Refuses(), source="s")
    executor = LocalExecutor([setup(plugin)], events.append, objects={plugin.name: plugin})
    failing = LocalExecutor([setup(broken)], events.append, objects={"broken": broken})
    try:
        for each, found in ((executor, plugin), (failing, broken)):
            each.submit(Pack("p", (lane(1, found, {"a": 40}, seed=2),)))
            while each.busy:
                each.poll(0.5)
    finally:
        executor.stop()
        failing.stop()
    assert sum(isinstance(e, PackEnded) for e in events) == 2
    assert [e.metrics["y"] for e in events if isinstance(e, TrialFinished)] == [42]
    assert any(isinstance(e, LogText) and str(os.getpid()) not in e.text for e in events)
    assert ["not here" in e.message for e in events if isinstance(e, TrialFailed)] == [True]
