"""The Ray cluster: connects to one or starts one, and says which places it has; the only module that imports Ray.

Below `ray_workers`, which keeps workers there.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
from typing import Any

from gridsearch.errors import EngineUnreachable, UnusableError, UsageError

ADDRESS = "RAY_ADDRESS"

_ANSWER_SECONDS = 20.0
"""A cluster must answer within this."""

_CONNECT_SECONDS = 5.0
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # those of actors that have gone, which are reported as such
}
_ADDRESS_HINT = (
    f"{ADDRESS}=HOST:6379 on a machine of the cluster, or unset it: then one starts on this machine"
)
_VERSION_HINT = (
    "every machine needs the same versions of ray and Python, and a cluster with a token that token"
)


class _Session:
    ours = False
    """Whether this module has connected, and not somebody else in this process."""

    abandoned = False


def connect() -> Any:
    """Connect to the cluster at $RAY_ADDRESS, or start one on this machine, once; return the package.

    Raises:
        UsageError: ray is not installed, or the address is not one of a cluster.
        UnusableError: the cluster is of another version, or refuses us.
        EngineUnreachable: it does not answer.
    """
    if missing := lacking():
        raise UsageError(f"--executor ray: {missing}", hint="python -m pip install 'gridsearch[ray]'")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get(ADDRESS, "")
    how: dict[str, Any] = {"address": address}
    if address in ("", "local"):
        if "ray" not in sys.modules:  # it reads these when it is imported
            # Ray listens on all of the machine's addresses: without the token nobody else may use what we start.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            if os.environ["RAY_AUTH_MODE"] == "token":
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        how = {"address": "local", "include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))}
    ray = package()
    if ray.is_initialized():
        return ray
    if how["address"] != "local":
        require_answer(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**how, log_to_driver=False, logging_level=logging.CRITICAL, namespace="gridsearch")
    except (ConnectionError, TimeoutError) as error:
        raise EngineUnreachable(
            f"no Ray cluster at {address}: {one_line(error)}", hint=_ADDRESS_HINT
        ) from error
    except Exception as error:
        raise UnusableError(
            f"the Ray cluster cannot be used: {one_line(error)}", hint=_VERSION_HINT
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # not of the main thread, where Ray has set none either
            signal.signal(signal.SIGTERM, handler)
    _Session.ours = True
    _silence(ray)
    return ray


def _silence(ray: Any) -> None:
    """Keep Ray's own messages off the standard output, where a run's JSON may go: it has no setting for that.

    What they say (a node was lost, a cluster grows) the run says in its own words.
    """
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def lacking() -> str:
    """Return what `--executor ray` lacks on this machine, in a few words; "" where it has all."""
    if importlib.util.find_spec("ray") is None:
        return "the package ray is not installed"
    return ""


def package() -> Any:
    """Return the package, in a process that Ray itself has started."""
    import ray

    return ray


def disconnect() -> None:
    """Leave the cluster, unless somebody else in this process uses it; one that was started here ends."""
    if _Session.ours:
        _Session.ours = False
        package().shutdown()


def abandon() -> None:
    """Leave a cluster whose head is gone: to tell it so, now or as the process ends, would wait for it."""
    _Session.ours, _Session.abandoned = False, True
    atexit.unregister(package()._private.worker.shutdown)


def abandoned() -> bool:
    """Whether Ray still looks for a head that is gone: its threads then crash a process that ends as others do."""
    return _Session.abandoned


def head() -> str:
    """Return HOST:PORT of the cluster's head."""
    address: str = package().get_runtime_context().gcs_address
    return address


def listens(address: str, *, timeout: float) -> bool:
    """Return whether anybody takes connections at HOST:PORT: what Ray asks of a head that is gone, it waits for."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError:
        return False
    return True


def answers() -> list[str]:
    """Return, for the doctor, what `--executor ray` would use, in a few words.

    Raises:
        GridsearchError: no cluster answers at the address that is set.
    """
    address = os.environ.get(ADDRESS, "")
    if address in ("", "local"):
        return ["starts a cluster on this machine"]
    require_answer(address)
    return ["answers"]


def require_answer(address: str) -> None:
    """Refuse an address at which no cluster answers soon: Ray itself would try for minutes, and end the process.

    Raises:
        UsageError: it is no address of a cluster.
        EngineUnreachable: nobody answers.
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host or not host:
        kind = "; ray:// and http:// are for Ray's client and its jobs" if "//" in address else ""
        raise UsageError(f"{ADDRESS}={address} is not HOST:PORT{kind}", hint=_ADDRESS_HINT)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise EngineUnreachable(f"no Ray cluster at {address}: {reason}", hint=_ADDRESS_HINT) from error
    asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        healthy = subprocess.run(asked, capture_output=True, timeout=_ANSWER_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        healthy = None
    if healthy is None or healthy.returncode:
        raise EngineUnreachable(
            f"what listens at {address} does not answer as a Ray cluster", hint=_ADDRESS_HINT
        )


def devices_of_cluster(device: str) -> tuple[str, ...]:
    """Return where workers of the cluster train, each on the one that its actor sees.

    Args:
        device: as a user has it.

    Raises:
        UsageError: it is none of a cluster.
        GridsearchError: see `connect`.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {device}: on a Ray cluster auto, cpu or cuda", hint="the cluster chooses which one"
        )
    connect()
    if device == "cuda" or (device == "auto" and places("cuda:0")):
        return ("cuda:0",)
    return ("cpu",)


def places(device: str) -> int:
    """Return how many workers the nodes that are there have places for, others' work left aside."""
    return sum(int(node["Resources"].get(resource(device), 0)) for node in connect().nodes() if node["Alive"])


def megabytes_of_place(device: str) -> float | None:
    """Return the memory for each worker on the node that has least; None where nobody knows."""
    found = [
        node["Resources"].get("memory", 0) / count / 1e6
        for node in connect().nodes()
        if node["Alive"] and (count := int(node["Resources"].get(resource(device), 0)))
    ]
    return min(found) if found and device == "cpu" else None


def resource(device: str) -> str:
    """Return what Ray calls the resource of which each worker on such a device takes one."""
    return "CPU" if device == "cpu" else "GPU"


def one_line(error: BaseException) -> str:
    """Return the last line of what Ray says, which has a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else type(error).__name__
