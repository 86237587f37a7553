"""Slurm's allocations run the workers of a grid: the trials are those of any run, whatever becomes of allocations."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading

import psutil
import pytest

from gridsearch.api.keywords import run_options, spec_of
from gridsearch.errors import EngineUnreachable
from gridsearch.executors import slurm as slurm_jobs
from gridsearch.executors import slurm_transport
from gridsearch.executors.slurm_words import read_request
from gridsearch.records import TrialState
from gridsearch.service.run import running
from gridsearch.service.run.progress import Silent
from tests.executors.worker_events import wait_for
from tests.servers.slurm import slurm_cluster  # noqa: F401 - a fixture

FILES = """
    import pathlib, time
    from torch import nn

    HERE = pathlib.Path(__file__).parent

    class Slow(nn.Module):  # what no pack can train as one program
        def __init__(self, in_channels, num_classes, image_size):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        def forward(self, x):
            if self.training and (HERE / "hold").exists():
                time.sleep(0.02)
            return self.net(x) if x.sum() > -1e9 else x

    def paced(params, seed):
        print("begins", params["x"])
        for step in range(3):
            yield {"value": params["x"] + step}
            (HERE / f"{params['x']}-{step}").touch()
            while (HERE / "hold").exists() or (HERE / f"hold-{params['x']}").exists():
                time.sleep(0.02)
"""


@pytest.fixture
def code(tmp_path):
    """A file of a user's own; what it defines goes slowly while a file "hold" lies beside it."""
    path = tmp_path / "own.py"
    path.write_text(textwrap.dedent(FILES))
    (tmp_path / "hold").touch()
    return path


@pytest.fixture
def slurm(slurm_cluster, monkeypatch):  # noqa: F811
    """The cluster, as this process finds it."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.cancel_all()


class Heard(Silent):
    """Keeps what a run says."""

    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(message)

    warn = say

    def __repr__(self):
        return "\n".join(self.lines)

    def has(self, part):
        return any(part in line for line in self.lines)


def run(home, heard=None, *, grid, **how):
    """Run a grid in this process, and return its trials."""
    what = {
        name: how.pop(name) for name in ("dataset", "model", "objective", "seeds", "epochs") if name in how
    }
    options = run_options({"home": home, "report": False, **how})
    outcome = running.run(spec_of(grid, what, {}), options, observer=heard or Heard())
    assert {trial.state for trial in outcome.data.trials} == {TrialState.COMPLETE}
    return outcome.data.trials


class Meanwhile:
    """Does something in another thread while a run goes on; what fails there fails the test."""

    def __init__(self, code, work):
        self._folder, self._work, self._failed = code.parent, work, None
        self._thread = threading.Thread(target=self._do, daemon=True)

    def _do(self):
        try:
            self._work()
        except BaseException as error:
            self._failed = error
        finally:
            for hold in self._folder.glob("hold*"):
                hold.unlink(missing_ok=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, kind, *_):
        self._thread.join(60)
        if self._failed is not None:
            raise self._failed


def in_allocations(home):
    """The processes in allocations of a home that keep their workers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("submitit" in word for word in words) and any(str(home) in word for word in words):
            found.append(process)
    return found


@pytest.mark.slurm
def test_a_preempted_job_leaves_checkpoints_and_its_trials_are_those_of_a_local_run(
    slurm, code, home, tmp_path
):
    epochs = 25  # Slurm may take its time: what is preempted must not be the last trial's end
    how = {"dataset": "digits", "model": f"{code}:Slow", "seeds": 2, "epochs": epochs}
    how |= {"grid": {"lr": [0.1, 0.01]}, "checkpoint": "every-epoch", "workers": 1, "lanes": 2, "retries": 0}
    heard = Heard()

    def preempt():
        wait_for(lambda: len(list(home.glob("*/trials/*/.attempt-*/checkpoint-*"))) > 1)
        (job,) = slurm.jobs()
        slurm.command("sbatch", "--partition=high", "--cpus-per-task=4", "--wrap=true", "--output=/dev/null")
        wait_for(lambda: slurm.jobs() == {job: "PENDING"})
        slurm.command("scontrol", "update", f"jobid={job}", "StartTime=now")

    with Meanwhile(code, preempt):
        trials = run(home, heard, executor="slurm", slurm={"partition": "low", "time": 10}, **how)
    wait_for(lambda: not slurm.jobs())
    assert heard.has("Slurm takes it away; trial")
    assert heard.has("continue from epoch") or heard.has("continues from epoch")
    assert not (home / ".slurm").exists()
    local = run(tmp_path / "local", **how)
    assert [(t.params, t.seed, t.metrics) for t in trials] == [(t.params, t.seed, t.metrics) for t in local]
    assert {trial.attempts for trial in trials} == {1}


@pytest.mark.slurm
def test_a_job_that_dies_is_replaced_and_one_without_work_is_given_back(slurm, code, home, monkeypatch):
    monkeypatch.setattr(slurm_transport, "SPARE_SECONDS", 1.0)
    code.with_name("hold-6").touch()
    heard = Heard()

    def kill():
        wait_for(lambda: len(list(code.parent.glob("*-0"))) == 2)
        in_allocations(home)[0].kill()
        wait_for(lambda: heard.has("died"))
        wait_for(lambda: len(in_allocations(home)) == 2)
        code.with_name("hold").unlink()
        wait_for(lambda: heard.has("is idle: it is released"))
        wait_for(lambda: len(in_allocations(home)) == len(slurm.jobs()) == 1)
        code.with_name("hold-6").unlink()

    with Meanwhile(code, kill):
        trials = run(
            home,
            heard,
            grid={"x": [1, 2, 3, 4, 5, 6]},
            objective=f"{code}:paced",
            executor="slurm",
            slurm=["partition=low", "time=10"],
            workers=2,
        )
    assert [trial.value for trial in trials] == [3, 4, 5, 6, 7, 8]
    logs = [(home / "paced" / "trials" / str(t.number) / "log").read_text() for t in trials]
    assert sorted(log.count("begins") for log in logs) == [1, 1, 1, 1, 1, 2]


@pytest.mark.slurm
def test_a_run_says_what_it_waits_for_and_ends_where_all_its_jobs_are_cancelled(slurm, code, home):
    heard = Heard()

    def cancel():
        wait_for(lambda: heard.has("0 of 1 allocations run, 1 waits in partition low (BeginTime)"))
        (job,) = slurm.jobs()
        slurm.command("scancel", job)

    with Meanwhile(code, cancel), pytest.raises(EngineUnreachable, match="cancelled"):
        options = {"executor": "slurm", "slurm": ["begin=now+1hour"], "workers": 1}
        run(home, heard, grid={"x": [1]}, objective=f"{code}:paced", **options)
    assert heard.has("was cancelled: it is not replaced")


@pytest.mark.slurm
def test_allocations_that_cannot_reach_the_runner_end_the_run_with_what_they_said(
    slurm, code, home, monkeypatch
):
    monkeypatch.setenv(slurm_transport.ADDRESS, "nowhere.invalid")
    options = {"executor": "slurm", "workers": 3, "lanes": 1}
    with pytest.raises(
        EngineUnreachable, match=r"no connection from .* cannot be reached at nowhere\.invalid"
    ):
        run(home, grid={"x": [1, 2, 3]}, objective=f"{code}:paced", **options)
    assert not (home / ".slurm").exists()


@pytest.mark.slurm
def test_a_killed_runner_leaves_no_allocation_and_the_next_run_clears_its_folder(slurm, code, home):
    words = [
        "run",
        "--objective",
        f"{code}:paced",
        "--grid",
        "x=1",
        "--executor",
        "slurm",
        "--home",
        str(home),
    ]
    runner = subprocess.Popen([sys.executable, "-m", "gridsearch", *words, "--no-report"])
    try:
        wait_for(lambda: list(code.parent.glob("*-0")))
        workers = [child for each in in_allocations(home) for child in each.children(recursive=True)]
        assert workers
    finally:
        runner.kill()
        runner.wait()
    wait_for(lambda: not slurm.jobs())
    assert not psutil.wait_procs(workers, timeout=60)[1]
    (left,) = (home / ".slurm").iterdir()
    code.with_name("hold").unlink()
    run(home, grid={"x": [1]}, objective=f"{code}:paced", executor="slurm", lease="1s")
    assert not left.exists()


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["partition=nowhere"], 2, "partition"),
        (["constraint=gpu9"], 2, "feature"),
        (["cpus_per_task=99"], 2, "not available"),
    ],
)
def test_what_slurm_refuses_is_one_line_before_anything_is_written(slurm, cli, home, words, code, said):
    options = [part for word in words for part in ("--slurm", word)]
    done = cli("run", "--dataset", "digits", "--grid", "lr=.1", "--executor", "slurm", *options)
    assert (done.code, said in done.error.lower(), home.exists()) == (code, True, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "slurm", "--slurm", "partitoin=gpu"], "did you mean 'partition'"),
        (["--executor", "slurm", "--slurm", "nodes=2"], "--workers says how many"),
        (["--executor", "slurm", "--slurm", "time=soon"], "takes a time"),
        (["--executor", "slurm", "--slurm", "mem=much"], "takes a size"),
        (["--executor", "slurm", "--slurm", "partition="], "partition=VALUE"),
        (["--executor", "slurm", "--slurm", "qos=a", "--slurm", "qos=b"], "given twice"),
        (["--slurm", "partition=gpu"], "only with --executor slurm"),
    ],
)
def test_a_wrong_word_of_slurm_s_is_refused(cli, home, words, said):
    done = cli("run", "--dataset", "digits", "--grid", "lr=.1", *words)
    assert (done.code, home.exists()) == (2, False)
    assert said in done.error


def test_a_machine_without_slurm_or_submitit_is_told_so(cli, home, tmp_path, monkeypatch):
    run_it = ("run", "--dataset", "digits", "--grid", "lr=.1", "--executor", "slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli(*run_it)
    assert (done.code, home.exists()) == (4, False)
    assert "no sbatch, squeue, scancel on PATH" in done.error
    monkeypatch.setattr(slurm_jobs, "_COMMANDS", ())
    monkeypatch.setitem(sys.modules, "submitit", None)
    done = cli(*run_it)
    assert done.code == 4
    assert "needs submitit" in done.error


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], (0, 1, None, None)),
        (["cpus-per-task=8", "mem=16G", "time=90"], (0, 8, 16384.0, 5400)),
        (["gres=gpu:a100:2", "t=1-12", "mem_per_cpu=500"], (2, 2, 500.0, 129600)),
        (["gpus_per_node=4", "cpus_per_task=2", "mem=0", "time=2:30:00"], (4, 4, None, 9000)),
        (["gpus=h100:1", "time=10:30", "exclusive"], (1, 1, None, 630)),
    ],
)
def test_an_allocation_has_a_worker_for_each_gpu_else_for_each_core(words, wanted):
    request = read_request(words)
    assert (request.gpus, request.workers, request.megabytes, request.seconds) == wanted
    assert request.notice <= (request.seconds or 480) / 4


def test_a_grid_on_submitit_s_own_processes_is_that_of_a_local_run(code, home, tmp_path, monkeypatch):
    """Without Slurm: a worker whose time is nearly over leaves, one that is killed is replaced."""
    monkeypatch.setattr(slurm_jobs, "require_slurm", lambda request: None)
    monkeypatch.setattr(slurm_transport.SlurmTransport, "__init__", on_this_machine)
    how = {"dataset": "digits", "model": f"{code}:Slow", "seeds": 2, "epochs": 4, "grid": {"lr": [0.1]}}
    how |= {"checkpoint": "every-epoch", "workers": 1, "lanes": 2, "retries": 0}
    heard = Heard()

    def signalled():
        wait_for(lambda: len(list(home.glob("*/trials/*/.attempt-*/checkpoint-*"))) > 1)
        for process in in_allocations(home):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "submitit.core._submit" in process.cmdline():
                    process.send_signal(signal.SIGUSR2)

    with Meanwhile(code, signalled):
        trials = run(home, heard, executor="slurm", **how)
    assert heard.has("its time is nearly over")
    local = run(tmp_path / "local", executor="inline", **how)
    assert [(t.params, t.seed, t.metrics) for t in trials] == [(t.params, t.seed, t.metrics) for t in local]
    wait_for(lambda: not in_allocations(home))


_slurm_transport = slurm_transport.SlurmTransport.__init__


def on_this_machine(self, *args, **how):
    _slurm_transport(self, *args, **{**how, "cluster": "local"})
