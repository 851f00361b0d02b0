"""The cluster files: Ray's validation of the `ray up` file, the manifest's required fields, runs of the Slurm script.

Invariant: nothing here needs a network, a cluster, or a container engine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"


def load(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("the validation opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def ray_up_config(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does with a file before it touches a machine (`create_or_update_cluster`, `_bootstrap_config`)."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_ray_up_file_passes_rays_own_validation(no_network: None) -> None:
    prepared = ray_up_config(load("ray-cluster.yaml"))
    (node_type,) = prepared["available_node_types"].values()
    workers = len(prepared["provider"]["worker_ips"])
    assert (node_type["min_workers"], node_type["max_workers"], prepared["max_workers"]) == (workers,) * 3
    # Our commands, not the defaults of the provider, and the setup merged into both kinds of node.
    assert (
        prepared["head_setup_commands"]
        == prepared["worker_setup_commands"]
        == load("ray-cluster.yaml")["setup_commands"]
    )
    for start in (prepared["head_start_ray_commands"], prepared["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]


def test_rays_validation_refuses_a_misspelt_key(no_network: None) -> None:
    import jsonschema

    config = load("ray-cluster.yaml")
    config["setup_comands"] = config.pop("setup_commands")
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        ray_up_config(config)


def test_ray_up_file_names_no_real_machine() -> None:
    import ipaddress

    provider = load("ray-cluster.yaml")["provider"]
    documentation = ipaddress.ip_network("192.0.2.0/24")  # RFC 5737
    assert all(ipaddress.ip_address(ip) in documentation for ip in [provider["head_ip"], *provider["worker_ips"]])


def test_rayjob_has_what_kuberay_requires() -> None:
    job = load("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (group,) = cluster["workerGroupSpecs"]
    assert group["groupName"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # The head's CPUs belong to the driver, so every one of distgrad's workers must fit on the worker nodes.
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (container,) = group["template"]["spec"]["containers"]
    words = shlex.split(spec["entrypoint"])
    assert int(words[words.index("--workers") + 1]) == group["replicas"] * int(container["resources"]["limits"]["cpu"])
    assert words[words.index("--address") + 1] == "auto"


def test_rayjob_pods_have_resources_shared_memory_and_no_root() -> None:
    cluster = load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings only"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] and container["name"].startswith("ray-")
        # Requests equal to limits: the pod is not evicted for memory, and Ray counts the CPUs it really has.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        assert volumes[mount["name"]]["emptyDir"]["medium"] == "Memory"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_one_ray_version_everywhere() -> None:
    (image,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE)
    (machines,) = re.findall(r"ray\[default\]==([\d.]+)", (CLUSTER / "ray-cluster.yaml").read_text())
    assert load("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == image == machines


def dockerfile_instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(word, " ".join(rest.split())) for word, rest in pairs]


def test_dockerfile_is_built_from_the_repository_as_an_ordinary_user() -> None:
    instructions = dockerfile_instructions()
    assert instructions[0] == ("FROM", "python:3.11-slim")
    users = [value for word, value in instructions if word == "USER"]
    assert users and users[-1] == "1000", "by number, and not root"
    copied = [source for word, value in instructions if word == "COPY" for source in value.split()[:-1]]
    assert {"pyproject.toml", "distgrad", "examples"} <= set(copied)
    assert not [source for source in copied if source.startswith(("/", "~", ".."))]
    assert any(word == "RUN" and "wget" in value for word, value in instructions), "KubeRay's probes need wget"


@pytest.mark.parametrize("name", sorted(path.name for path in CLUSTER.iterdir() if path.is_file()))
def test_no_path_or_registry_of_one_machine(name: str) -> None:
    text = (CLUSTER / name).read_text()
    allowed_homes = {"distgrad"}  # the user that the image creates
    homes = set(re.findall(r"(?<![\w~.-])/home/([\w.-]+)", text))
    assert homes <= allowed_homes
    assert not re.search(r"(?<![\w~.-])/(root|work|Users|mnt|data|scratch)(/|\b)", text)
    assert not re.search(r"(index-url|trusted-host|extra-index|registry\.|\.io/[\w-]+/[\w-]+:)", text)


def test_kuberay_driver_exists_or_is_the_example_of_the_readme() -> None:
    entrypoint = load("kuberay-rayjob.yaml")["spec"]["entrypoint"].split()
    assert entrypoint[:2] == ["python", "examples/digits.py"]
    assert "examples/digits.py" in (CLUSTER / "README.md").read_text()


def test_readme_names_every_file() -> None:
    text = (CLUSTER / "README.md").read_text()
    files = {path.name for path in CLUSTER.iterdir() if path.is_file()} - {"README.md", "Dockerfile.dockerignore"}
    assert {name for name in files if f"`{name}`" not in text} == set()


def test_slurm_script_parses_and_never_stops_other_rays() -> None:
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash" and os.access(script, os.X_OK)
    # sbatch stops reading its settings at the first command.
    settings = [index for index, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [index for index, line in enumerate(lines) if line and not line.startswith("#")]
    assert settings and settings[-1] < commands[0]
    code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    assert not re.search(r"ray stop|pkill|killall", code)


# Stand-ins for Slurm and Ray: each writes down how it was called. `ray start --block` lives until it is told to end.
SRUN = """#!/bin/bash
echo "srun $*" >>"$CALLS"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\nprintf 'node%s\\n' 1 2 3\n"
RAY = """#!{python}
import os, signal, sys
def log(text):
    with open(os.environ["CALLS"], "a") as file:
        file.write(text + "\\n")
def end(number, frame):
    log("ended " + role)
    sys.exit(0)
role = "head" if "--head" in sys.argv else "worker"
signal.signal(signal.SIGTERM, end)
log(" ".join(["ray", role, os.environ["RAY_AUTH_MODE"], str(len(os.environ["RAY_AUTH_TOKEN"])), *sys.argv[1:]]))
signal.pause()
"""
# Answers for `python -c` and `python -`, whose script arrives on standard input; JOINED nodes are there.
RAY_MODULE = """
import os
class util:
    get_node_ip_address = staticmethod(lambda: "127.0.0.1")
def init(**settings):
    assert settings["address"] == "auto" and os.environ["RAY_ADDRESS"].startswith("127.0.0.1:")
def nodes():
    return [{"Alive": True, "NodeManagerHostname": f"node{i + 1}"} for i in range(int(os.environ["JOINED"]))]
"""


@contextlib.contextmanager
def expected_head() -> Iterator[int]:
    """Listens where the script expects the head of a job; yields the number of the job."""
    for job in range(4711, 4811):
        try:
            server = socket.create_server(("127.0.0.1", 20000 + job % 12000))
        except OSError:
            continue  # somebody else's port
        with server:
            yield job
        return
    raise AssertionError("no free port from 24711 to 24810")


def run_slurm(
    tmp_path: Path, driver: list[str], joined: int, limit: str = "20"
) -> tuple[subprocess.CompletedProcess[str], str, int]:
    """Runs the script for three nodes with stand-ins for Slurm and Ray; returns result, calls and job."""
    programs, modules, calls = tmp_path / "bin", tmp_path / "modules", tmp_path / "calls"
    programs.mkdir()
    modules.mkdir()
    (modules / "ray.py").write_text(RAY_MODULE)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("ray", RAY.format(python=sys.executable))):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    with expected_head() as job:
        result = subprocess.run(
            [str(CLUSTER / "slurm.sh"), *driver],
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PYTHONPATH": str(modules),
                "TMPDIR": str(tmp_path),
                "CALLS": str(calls),
                "JOINED": str(joined),
                "SLURM_JOB_ID": str(job),
                "SLURM_JOB_NODELIST": "node[1-3]",
                "SLURM_CPUS_PER_TASK": "4",
                "DISTGRAD_JOIN_SECONDS": limit,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
    return result, calls.read_text(), job


def test_slurm_script_starts_the_nodes_runs_the_driver_and_ends_them(tmp_path: Path) -> None:
    result, calls, job = run_slurm(
        tmp_path, ["bash", "-c", 'echo "driver $RAY_ADDRESS $RAY_AUTH_MODE"; exit 7'], joined=3
    )
    assert result.returncode == 7, result.stderr
    port = 20000 + job
    assert f"slurm.sh: 3 Ray nodes\ndriver 127.0.0.1:{port} token\n" in result.stdout
    head = re.search(rf"^ray head token 64 start --head .*--port={port} --num-cpus=4.*--block$", calls, re.MULTILINE)
    worker = re.search(
        rf"^ray worker token 64 start --address=127.0.0.1:{port} --num-cpus=4.*--block$", calls, re.MULTILINE
    )
    assert head and worker and head.start() < worker.start()
    assert re.search(r"^srun --nodes=2 --ntasks=2 --exclude=node1 ", calls, re.MULTILINE)
    assert sorted(re.findall(r"^ended (\w+)$", calls, re.MULTILINE)) == ["head", "worker"]
    assert re.search(rf"^srun .* rm -rf -- {re.escape(str(tmp_path))}/ray-{job}$", calls, re.MULTILINE)


def test_slurm_script_gives_up_when_a_node_does_not_join(tmp_path: Path) -> None:
    result, calls, _ = run_slurm(tmp_path, ["echo", "driver"], joined=2, limit="0.5")
    assert result.returncode == 1 and "driver" not in result.stdout
    assert "2 of 3 Ray nodes joined within 0.5 s: ['node1', 'node2'] of ['node1', 'node2', 'node3']" in result.stderr
    assert "DISTGRAD_JOIN_SECONDS" in result.stderr
    assert sorted(re.findall(r"^ended (\w+)$", calls, re.MULTILINE)) == ["head", "worker"]
