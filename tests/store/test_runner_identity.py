"""Whether the process that holds trials still lives."""

from __future__ import annotations

from gridsearch.store import RunnerIdentity


def test_this_process_is_alive_and_one_that_has_ended_is_dead(python):
    me = RunnerIdentity.current()
    assert not me.is_dead()
    other = python("from gridsearch.store import RunnerIdentity; print(repr(RunnerIdentity.current()))")
    out, err = other.communicate(timeout=60)
    theirs = eval(out, {"RunnerIdentity": RunnerIdentity})
    assert theirs.pid != me.pid, err
    assert theirs.is_dead()


def test_a_process_of_another_host_is_never_called_dead():
    assert not RunnerIdentity(host="elsewhere", boot="b", pid=2**22 + 1, started=1.0).is_dead()


def test_a_process_that_took_over_the_id_of_a_dead_one_is_another():
    me = RunnerIdentity.current()
    assert RunnerIdentity(host=me.host, boot=me.boot, pid=me.pid, started=me.started - 1).is_dead()
    assert RunnerIdentity(host=me.host, boot="before the restart", pid=me.pid, started=me.started).is_dead()
