"""The limits on memory that a training process has, whoever set them."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from gridsearch.training import memory


@pytest.fixture
def group(tmp_path):
    """Return a function that gives a control group files, by its path below the mount."""

    def make(path, **files):
        folder = tmp_path / "tree" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    return make


def tightest(tmp_path, own=""):
    (tmp_path / "own").write_text(own)
    found = memory.limits(root=tmp_path / "tree", own=tmp_path / "own")
    return min(
        (limit for limit in found if limit.name == "control group"), key=lambda x: x.left, default=None
    )


def version_2(group, path, most, used, cache=0):
    group(path, memory__max=most, memory__current=used, memory__stat=f"anon 300\ninactive_file {cache}")


def version_1(group, path, most, used, cache=0):
    group(
        f"memory/{path}",
        memory__limit_in_bytes=most,
        memory__usage_in_bytes=used,
        memory__stat=f"total_inactive_file {cache}",
    )


def test_without_a_group_the_machine_itself_is_the_limit(tmp_path, group):
    version_2(group, "", "max", 500)
    version_1(group, "", 9223372036854771712, 500)
    assert tightest(tmp_path) is None
    assert memory.tightest().most > 0


def test_a_containers_limit_counts_less_what_it_uses_beside_the_page_cache(tmp_path, group):
    version_2(group, "", 1000, 500, cache=200)
    assert tightest(tmp_path).left == 1000 - 500 + 200
    version_1(group, "", 800, 700, cache=50)
    assert (tightest(tmp_path).most, tightest(tmp_path).left) == (800, 150)


@pytest.mark.parametrize("make", [version_1, version_2])
def test_the_limits_of_the_own_group_and_of_all_above_it_count(tmp_path, group, make):
    """Slurm and systemd set them there; the root of the tree has none."""
    own = "4:memory:/user.slice/job_7/step_0\n0::/user.slice/job_7/step_0\n"
    make(group, "user.slice/job_7/step_0", 10_000, 100)
    assert tightest(tmp_path, own).left == 9_900
    make(group, "user.slice/job_7", 6_000, 5_000)
    assert tightest(tmp_path, own).left == 1_000
    make(group, "user.slice/job_8", 10, 10)
    assert tightest(tmp_path, own).left == 1_000, "another job's limit is not ours"


def test_a_path_that_the_container_does_not_see_leaves_the_root_of_its_tree(tmp_path, group):
    version_2(group, "", 700, 300)
    assert tightest(tmp_path, "0::/kubepods/pod1/container\n").left == 400
    assert tightest(tmp_path, "0::/../../outside\n").left == 400


def test_a_soft_limit_of_version_2_counts_too(tmp_path, group):
    version_2(group, "", "max", 100)
    group("", memory__high=900)
    assert tightest(tmp_path).left == 800


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit counts otherwise elsewhere")
@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_what_ulimit_allows_counts(kind):
    code = (
        "import resource\nfrom gridsearch.training import memory\n"
        f"resource.setrlimit({kind}, (3 * 2**30, resource.getrlimit({kind})[1]))\n"
        "limit = min((x for x in memory.limits() if 'ulimit' in x.name), key=lambda x: x.most)\n"
        "print(limit.most, 0 < limit.left < limit.most, memory.free_bytes() <= limit.left)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [str(3 * 2**30), "True", "True"]
