"""A Ray cluster of several nodes on this machine, in a folder of its own, with a token and without a dashboard."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_raylet_start_wait_time_s": "120",  # where the machine has much else to do
    "RAY_prestart_worker_first_driver": "0",  # each worker starts when it is asked for
    "RAY_enable_worker_prestart": "0",
}


_NODE = {"object_store_memory": 80 << 20}


class RayCluster:
    """A running cluster; its head has no core for workers.

    All is done in one thread, which lives as long as the cluster: the kernel ends Ray's processes with the thread that
    has started them.

    Attributes:
        address: HOST:PORT.
        nodes: those that were added and are there.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._folder = tempfile.mkdtemp(prefix="gsray")
        # Ray notes the cluster's address in its usual folder, which it does not make for a cluster with another one.
        Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray").mkdir(parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._cluster = self._thread.submit(self._start).result()
        self.address: str = self._cluster.address

    def _start(self) -> Any:
        from ray.cluster_utils import Cluster

        # neither what scales a cluster nor what carries logs to a driver: processes that take seconds to start
        fewer = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
        head = {**_NODE, **fewer, "num_cpus": 0, "temp_dir": self._folder}
        with _our_own_signals():
            return Cluster(initialize_head=True, head_node_args=head)

    def add(self, count: int = 1) -> None:
        """Add nodes with a core each, and wait until they are there."""
        self._thread.submit(self._add, count).result()

    def _add(self, count: int) -> None:
        with _our_own_signals():
            self.nodes += [self._cluster.add_node(num_cpus=1, wait=False, **_NODE) for _ in range(count)]
        self._cluster.wait_for_nodes(60)

    def kill(self) -> None:
        """End the oldest of the nodes that were added, without grace."""
        self._thread.submit(self._cluster.remove_node, self.nodes.pop(0), allow_graceful=False).result()

    def stop(self) -> None:
        """End all processes and remove the folder."""
        import ray

        ray.shutdown()
        self._thread.submit(self._cluster.shutdown).result()
        self._thread.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _our_own_signals() -> Any:
    """Let Ray start nodes without a handler of its own for SIGTERM, which only the main thread could set."""
    return mock.patch("ray._private.utils.set_sigterm_handler", lambda _: None)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """One cluster for all tests of a module; it begins without a node for workers."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    given = dict(SETTINGS)
    if "ray" not in sys.modules:  # it reads these when it is imported
        given |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    cluster = RayCluster()
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield cluster
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
