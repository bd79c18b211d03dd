"""The files that start clusters are ones that Ray's own checks, KubeRay's schema and bash accept."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ray_jobs.cluster.connection import LABEL
from tests.conftest import REPOSITORY

RAY = ("cluster.yaml", "cluster/aws.yaml", "cluster/gcp.yaml")
KUBERAY = ("cluster/kuberay-shards.yaml", "cluster/kuberay-training.yaml")
SLURM = "cluster/slurm.sbatch"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / name).read_text())


@pytest.mark.parametrize("name", RAY)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", RAY)
def test_nodes_install_what_is_locked_and_jobs_find_its_python(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/earshot/requirements.lock"] == "./requirements.lock"
    assert any("requirements.lock" in command for command in config["setup_commands"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        start = commands[-1]
        assert start.index("export PATH=~/earshot/.venv/bin:$PATH") < start.index("ray start")
        subprocess.run(["bash", "-n"], input="\n".join(commands), text=True, check=True)


@pytest.mark.parametrize("name", RAY[1:])
def test_a_cloud_has_spot_nodes_first_and_ends_idle_ones(name: str) -> None:
    config = read(name)
    assert config["idle_timeout_minutes"] > 0
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    for work, gpus in (("shards", 0), ("training", 4)):
        spot, other = types[f"{work}_spot"], types[work]
        assert spot["priority"] > other["priority"] and spot["min_workers"] == other["min_workers"] == 0
        assert "spot" in str(spot["node_config"]).lower() and "spot" not in str(other["node_config"]).lower()
        for node in (spot, other):
            assert node["labels"] == {LABEL: work} and node["resources"].get("GPU", 0) == gpus


def jobs() -> list[tuple[str, list[str]]]:
    """(file, words after ``python``) of every job that a file of a cluster starts or shows."""
    found = []
    for name in (*RAY, *KUBERAY, SLURM):
        text = re.sub(r"\\\n# +|(?<=[a-z0-9])\n    (?=--)", " ", (REPOSITORY / name).read_text())
        for job in re.findall(r"python (ray_jobs/\w+\.py -?[^\n|]*)$", text, re.MULTILINE):
            found.append((name, shlex.split(job)))
    return found


@pytest.mark.parametrize(("name", "words"), jobs(), ids=lambda value: value if isinstance(value, str) else value[0])
def test_every_job_that_is_shown_has_options_that_exist(name: str, words: list[str]) -> None:
    import argparse

    from ray_jobs import train
    from ray_jobs.cluster.runner import add_ray
    from sharding.commands import build

    parser = argparse.ArgumentParser()
    if words[0] == "ray_jobs/train.py":
        train.add_arguments(parser)
    else:
        build.add_arguments(parser)
        add_ray(parser, default="auto")
    args = parser.parse_args(words[1:])
    assert name in (RAY[0], SLURM) or args.nodes in ("shards", "training")


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_jobs_say_what_they_need(name: str) -> None:
    job = read(name)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert group["labels"] == {LABEL: group["groupName"]} and group["minReplicas"] == 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    import ray

    assert cluster["rayVersion"] == ray.__version__
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    wanted = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert wanted == ("--gpus 1" in job["spec"]["entrypoint"])


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_the_jobs(name: str) -> None:
    """Against KubeRay's own schema, ``ray.io_rayjobs.yaml``, whose path EARSHOT_KUBERAY_CRD gives."""
    file = os.environ.get("EARSHOT_KUBERAY_CRD")
    if not file:
        pytest.skip("no schema of KubeRay: EARSHOT_KUBERAY_CRD does not name ray.io_rayjobs.yaml")
    (version,) = [each for each in yaml.safe_load(Path(file).read_text())["spec"]["versions"] if each["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(read(name), schema)


def closed(schema: Any) -> Any:
    """The schema as Kubernetes applies it: fields that it does not know are errors."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        new = {"type": ["integer", "string"]}
    if isinstance(new.get("properties"), dict) and schema.get("type") == "object":
        new.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields", False)))
    return new


def test_bash_accepts_the_slurm_script(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(REPOSITORY / SLURM)], check=True)
    run = subprocess.run(["bash", str(REPOSITORY / SLURM)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 2 and "usage: sbatch" in run.stderr


PROGRAMS = {
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 127.0.1.1 fe80::1 10.1.2.3",
    "ray": """case $1 in
        status) test -e started ;;
        start) [ -z "${BROKEN:-}" ] || exit 1; echo "$@" >> started; echo $$ >> steps; exec sleep 300 ;;
    esac""",
}


def start_slurm(folder: Path, *job: str, **more: str) -> subprocess.Popen[str]:
    """The script on two nodes, with small programs in place of Slurm's and Ray's."""
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    environment = os.environ | slurm | {"SLURM_CPUS_PER_TASK": "2", "HOME": str(folder)} | more
    return subprocess.Popen(
        ["bash", str(REPOSITORY / SLURM), *job],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def left_over(folder: Path) -> list[str]:
    """Steps of the job that did not end with it."""
    return [pid for pid in (folder / "steps").read_text().split() if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("status", [0, 5])
def test_the_slurm_script_ends_as_its_job_does_and_leaves_nothing(tmp_path: Path, status: int) -> None:
    job = f'while [ "$(wc -l < started)" -lt 2 ]; do sleep 0.1; done; echo "$RAY_ADDRESS $PYTHONPATH"; exit {status}'
    script = start_slurm(tmp_path, "bash", "-c", job, PYTHONPATH="/more")
    out, errors = script.communicate(timeout=60)
    assert script.returncode == status, errors
    assert out.split() == ["10.1.2.3:20007", f"{tmp_path}:/more"], "an address that other nodes reach"
    head, other = (tmp_path / "started").read_text().splitlines()
    assert "--head --node-ip-address=10.1.2.3 --port=20007" in head and "--address 10.1.2.3:20007" in other
    assert left_over(tmp_path) == []


def test_a_slurm_job_at_its_time_limit_leaves_nothing(tmp_path: Path) -> None:
    script = start_slurm(tmp_path, "bash", "-c", "echo begun; echo $$ >> steps; exec sleep 300")
    assert script.stdout is not None and script.stdout.readline() == "begun\n"
    script.terminate()
    script.communicate(timeout=60)
    assert script.returncode == 143 and left_over(tmp_path) == []


def test_a_slurm_job_whose_ray_does_not_start_fails(tmp_path: Path) -> None:
    script = start_slurm(tmp_path, "true", BROKEN="1")
    _, errors = script.communicate(timeout=60)
    assert script.returncode == 1 and "Ray did not start on n1" in errors


def test_the_image_installs_what_is_locked() -> None:
    text = (REPOSITORY / "cluster/Dockerfile").read_text()
    assert "requirements.lock" in text and "USER ray" in text
    assert re.search(r"FROM python:3\.11", text)
