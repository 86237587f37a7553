"""The container files, read as an engine would read them: what they copy, run, allow and publish."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from gridsearch.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PREDEFINED = {"PATH"}


@dataclass
class CompiledGraph:
    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, word):
        return [rest for step, rest in self.steps if step == word]


def instructions(text):
    """Split a Dockerfile: comments out, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        yield word.upper(), rest.strip()


def read_dockerfile():
    arguments, stages = {}, []
    for word, rest in instructions((DOCKER / "Dockerfile").read_text()):
        if word == "FROM":
            base, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", rest).groups()
            stages.append(CompiledGraph(base, name))
        elif not stages:
            assert word == "ARG", "only ARG may stand before the first stage"
            key, _, value = rest.partition("=")
            arguments[key] = value
        else:
            stages[-1].steps.append((word, rest))
    return arguments, stages


def environment(stage):
    return dict(pair.split("=", 1) for rest in stage.of("ENV") for pair in shlex.split(rest))


ARGUMENTS, STAGES = read_dockerfile()
FINAL = STAGES[-1]
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
CUDA = yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())
SERVICES = COMPOSE["services"]


def accepted(words):
    """Parse a command of gridsearch with the real parser; `--help` and `--version` end in exit 0."""
    try:
        build_parser().parse_args(words)
    except SystemExit as end:
        assert end.code == 0, words


# The image


def test_the_base_image_is_pinned_to_a_full_version_and_all_stages_share_it():
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", ARGUMENTS["BASE"])
    assert len(STAGES) >= 2
    assert {stage.base for stage in STAGES} == {"${BASE}"}


def test_what_builds_the_image_stays_out_of_it():
    installed = [rest for rest in FINAL.of("COPY") if rest.startswith("--from=")]
    assert installed == ["--from=build /opt/gridsearch /opt/gridsearch"]
    assert STAGES[0].name == "build"
    assert not any("pip" in rest for rest in FINAL.of("RUN"))


def test_the_process_is_not_root_and_becomes_so_before_the_entry_point():
    order = [word for word, _ in FINAL.steps]
    assert order.index("USER") < order.index("ENTRYPOINT")
    (user,) = FINAL.of("USER")
    uid, gid = user.split(":")
    assert int(uid) >= 10_000
    assert int(gid) >= 10_000
    assert not any(word in ("RUN", "COPY", "ADD") for word in order[order.index("USER") :])


def test_what_is_written_are_two_volumes_that_the_user_owns():
    (volumes,) = FINAL.of("VOLUME")
    values = environment(FINAL)
    assert (
        json.loads(volumes) == [values["GRIDSEARCH_HOME"], values["GRIDSEARCH_CACHE"]] == ["/runs", "/cache"]
    )
    (user,) = FINAL.of("USER")
    owner, group = user.split(":")
    made = next(rest for rest in FINAL.of("RUN") if "install --directory" in rest)
    assert re.search(rf"install --directory --owner={owner} --group={group} /runs /cache$", made)


def test_libraries_write_only_under_tmp_so_that_the_root_may_be_read_only():
    values = environment(FINAL)
    assert values["PYTHONDONTWRITEBYTECODE"] == "1"
    assert all(values[name].startswith("/tmp") for name in ("HOME", "MPLCONFIGDIR"))


def ignored(path):
    """Say whether .dockerignore keeps a path out of the build: the last rule that matches decides."""
    answer = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keep = rule.startswith("!")
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = Path(path).parts
        tails = (
            [parts]
            if not rule.removeprefix("!").startswith("**/")
            else [parts[i:] for i in range(len(parts))]
        )
        heads = ["/".join(tail[:n]) for tail in tails for n in range(1, len(tail) + 1)]
        if any(fnmatch.fnmatchcase(head, pattern) and "/" not in head for head in heads):
            answer = not keep
    return answer


def copied():
    for stage in STAGES:
        for rest in stage.of("COPY"):
            if not rest.startswith("--from="):
                yield from rest.split()[:-1]


@pytest.mark.parametrize("source", sorted(set(copied())))
def test_everything_that_is_copied_exists_and_reaches_the_build(source):
    assert (ROOT / source).exists()
    assert not ignored(source)


@pytest.mark.parametrize(
    "path",
    [".git", ".venv", "runs", "tests", "docker", "secrets.env", "gridsearch/__pycache__", "studies/x.pyc"],
)
def test_nothing_else_of_the_working_tree_reaches_the_build(path):
    assert ignored(path)


def test_the_build_lets_in_nothing_that_no_stage_copies():
    let_in = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().split()
        if line.startswith("!")
    }
    assert let_in == set(copied())


def test_every_argument_is_used_and_every_variable_is_declared():
    for stage in STAGES:
        declared = {rest.partition("=")[0] for rest in stage.of("ARG")}
        text = " ".join(rest for word, rest in stage.steps if word != "ARG")
        used = set(re.findall(r"\$\{?(\w+)", text))
        assert declared <= used
        assert used <= declared | set(environment(stage)) | PREDEFINED
    assert set(ARGUMENTS) == {"BASE"}


def test_the_tested_versions_are_what_is_installed():
    installs = [
        line
        for stage in STAGES
        for rest in stage.of("RUN")
        for line in re.findall(r"pip install[^;&]*", rest)
    ]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)


def torch_step(tmp_path, **arguments):
    """Run the step that installs torch in a real shell, with a `pip` that only says what it was asked."""
    (step,) = [rest for rest in STAGES[0].of("RUN") if "ACCELERATOR" in rest]
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", step],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.defpath}", **arguments},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_cuda_takes_torch_from_the_default_index(tmp_path):
    code, asked, _ = torch_step(tmp_path, ACCELERATOR="cuda", TORCH_INDEX_URL="")
    assert (code, asked) == (0, ["install", "--constraint", "constraints.txt", "torch", "torchvision"])


def test_cpu_takes_torch_alone_from_the_index_that_is_given(tmp_path):
    code, asked, _ = torch_step(tmp_path, ACCELERATOR="cpu", TORCH_INDEX_URL="https://wheels.example/cpu")
    assert code == 0
    assert asked[-4:] == ["--index-url", "https://wheels.example/cpu", "torch", "torchvision"]
    assert "--no-deps" in asked


@pytest.mark.parametrize("accelerator", ["cpu", "tpu", ""])
def test_a_cpu_build_without_its_index_or_another_accelerator_is_refused_with_a_reason(tmp_path, accelerator):
    code, asked, message = torch_step(tmp_path, ACCELERATOR=accelerator, TORCH_INDEX_URL="")
    assert (code, asked) == (2, [])
    assert "ACCELERATOR" in message


def test_the_entry_point_its_default_and_the_health_check_are_commands_that_exist(capsys):
    (entry,), (default,), (health,) = (FINAL.of(word) for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    assert json.loads(entry) == ["gridsearch"]
    accepted(json.loads(default))
    program, *words = json.loads(health.partition("CMD ")[2])
    assert program == "gridsearch"
    accepted(words)


# Compose


def test_the_services_are_a_runner_and_two_dashboards():
    assert set(SERVICES) == {"runner", "dashboard", "tensorboard"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == FINAL.of("USER")[0]
    assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_health_check_and_mounts_the_store_from_a_declared_volume(name):
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    mounts = dict(reversed(volume.split(":")) for volume in service["volumes"])
    assert mounts == {"/runs": "runs", "/cache": "cache"}
    assert set(mounts.values()) == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_the_program_takes(name):
    service = SERVICES[name]
    accepted(service["command"])
    if service["healthcheck"]["test"][1] == "gridsearch":
        accepted(service["healthcheck"]["test"][2:])
    for word in service["command"]:
        assert not word.endswith(".toml") or (ROOT / "studies" / word).is_file()


@pytest.mark.parametrize("name", ["dashboard", "tensorboard"])
def test_a_dashboard_listens_inside_and_is_published_to_this_machine_alone(name):
    service = SERVICES[name]
    options = build_parser().parse_args(service["command"])
    assert options.host == "0.0.0.0"
    assert service["ports"] == [f"127.0.0.1:{options.port}:{options.port}"]
    probe = service["healthcheck"]["test"][-1]
    compile(probe, name, "exec")
    assert f"http://127.0.0.1:{options.port}/" in probe


def test_the_runner_publishes_nothing():
    assert "ports" not in SERVICES["runner"]


def test_compose_builds_the_dockerfile_with_arguments_that_it_has():
    build = SERVICES["runner"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    declared = {rest.partition("=")[0] for stage in STAGES for rest in stage.of("ARG")}
    assert set(build["args"]) == declared


def test_the_file_for_gpus_adds_them_to_the_runner_and_changes_nothing_else():
    assert set(CUDA) == {"services"}
    assert {name: set(service) for name, service in CUDA["services"].items()} == {"runner": {"deploy"}}


# Their description


def described_commands():
    """Yield the words that the README's shell lines hand to gridsearch."""
    text = (DOCKER / "README.md").read_text()
    for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            start = next(
                (i for i, w in enumerate(words) if w in ("runner", "grid") or w.startswith("gridsearch:")),
                None,
            )
            if start is not None:
                yield words[start + 1 :]
    for line in re.findall(r"`((?:run|data|worker) [^`]*)`", text):
        yield shlex.split(line)


def test_every_command_in_the_description_is_one_that_the_program_takes():
    commands = list(described_commands())
    assert len(commands) == 10
    for words in commands:
        accepted(words)


def test_the_description_names_every_build_argument_with_its_default():
    text = (DOCKER / "README.md").read_text()
    declared = {rest.partition("=")[::2] for stage in STAGES for rest in stage.of("ARG")} | set(
        ARGUMENTS.items()
    )
    for name, default in declared:
        shown = f"`{default}`" if default else "empty"
        assert f"| `{name}` | {shown} |" in text


@pytest.mark.parametrize(
    "path",
    [*sorted(path for path in DOCKER.rglob("*") if path.is_file()), ROOT / ".dockerignore"],
    ids=lambda path: path.name,
)
def test_no_host_but_the_loopback_is_named(path):
    hosts = re.findall(r"https?://([\w.-]+)", path.read_text())
    assert set(hosts) <= {"127.0.0.1"}


# KubeRay


def test_the_ray_job_runs_a_command_that_there_is_and_keeps_its_results():
    job, claim = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "gridsearch"
    accepted(words)
    asked = build_parser().parse_args(words)
    assert asked.executor == "ray"
    cluster = job["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert cluster["rayVersion"] == pinned
    head = cluster["headGroupSpec"]
    (runner,) = head["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in runner["volumeMounts"]}
    volumes = {each["name"]: each for each in head["template"]["spec"]["volumes"]}
    assert volumes[mounts[asked.home]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert head["rayStartParams"]["num-cpus"] == "0"  # a text, as Ray's start takes it
    (group,) = cluster["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    assert group["maxReplicas"] * int(worker["resources"]["limits"]["cpu"]) >= asked.workers
    assert worker["image"] == runner["image"]
    for container in (runner, worker):
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
