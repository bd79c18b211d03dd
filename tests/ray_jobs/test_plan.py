"""``python -m ray_jobs plan``: a catalogue, a cluster's file and recipes in, hours, bytes and money out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_jobs.__main__ import main
from ray_jobs.costs import Nodes
from ray_jobs.plan import nodes_of, read_cluster
from tests.conftest import REPOSITORY
from tests.ray_jobs.test_costs import catalogue

AWS = str(REPOSITORY / "cluster/aws.yaml")
HOSTS = str(REPOSITORY / "cluster.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "catalogue").mkdir()
    pq.write_table(catalogue(400), tmp_path / "catalogue/clotho.parquet")
    (tmp_path / "run/checkpoints/step-40").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step-40/weights").write_bytes(b"x" * 500)
    lines = [json.dumps({"step": step, "clips_per_s": 40.0}) for step in range(40)]
    (tmp_path / "run/metrics.jsonl").write_text("\n".join(lines))
    return tmp_path


def plan(folder: Path, *words: str, cluster: str = AWS) -> int:
    return main(["plan", "--catalogue", str(folder / "catalogue"), "--cluster", cluster, *words])


def test_a_plan_has_hours_bytes_and_money(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe=dual_encoder", f"--trial=dual_encoder={folder / 'run'}", "--price=shards_spot=2"]
    words += ["--price=training_spot=3", "--price=storage=1"]
    assert plan(folder, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    build, recipe = found["build"], found["recipes"]["dual_encoder"]
    assert build["money"] == pytest.approx([hours * 32 * 2 for hours in build["hours"]])
    assert recipe["money"] == pytest.approx([hours * 4 * 3 for hours in recipe["hours"]])
    assert recipe["ranks"] == 16 and recipe["checkpoint_bytes"] == 3 * 500
    assert plan(folder, *words) == 0
    shown = capsys.readouterr().out
    assert "400 clips, 1.1 hours of sound" in shown and "32 nodes (shards_spot) of 16 cores" in shown
    assert "4 nodes (training_spot) of 48 cores and 4 GPUs: 16 ranks" in shown and "audiocaps/train" in shown


def test_small_figures_are_shown_as_people_read_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder, "--price=shards_spot=0.01") == 0
    shown = capsys.readouterr().out
    assert "e-0" not in shown and "time     under 1 s, " in shown and "money    under 0.01\n" in shown


def test_what_is_not_known_is_said_and_not_invented(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder, "--recipe=dual_encoder", "--cpus=8", cluster=HOSTS) == 0
    shown = capsys.readouterr().out
    assert "give --price host=AMOUNT" in shown and "give --trial dual_encoder=RUN" in shown
    assert "3 nodes (host) of 8 cores" in shown


def test_every_cluster_file_has_nodes_that_build_and_nodes_that_train() -> None:
    for name, spot in (("aws", AWS), ("gcp", str(REPOSITORY / "cluster/gcp.yaml"))):
        building, training, head = nodes_of(read_cluster(spot), None, None, name)
        assert building == Nodes("shards_spot", 32, 16, 0) and head == "head"
        assert training.kind == "training_spot" and training.gpus == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--price=gpu=1"], "head, shards_spot, storage, training_spot"),
        (["--price=shards_spot=much"], "--price takes a number that is not negative"),
        (["--price=3"], "--price must read NAME=VALUE"),
        (["--trial=demo=RUN"], "RUN"),
        (["--cpus=0"], "--cpus is too small"),
        (["--catalogue=nothing"], "no catalogue lies here"),
        (["--cluster=README.md"], "README.md"),
        (["--cluster=cluster/kuberay-shards.yaml"], "kuberay-shards.yaml"),
        (["--recipe=nothing"], "nothing"),
    ],
)
def test_bad_input_is_an_error_with_a_remedy(
    folder: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert plan(folder, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("[a, b]", "available_node_types must be a mapping"),
        ("{a: {resources: {CPU: many}}}", "CPU must be a whole number"),
        ("{a: {resources: [CPU]}}", "a.resources must be a mapping"),
        ("{a: {resources: {CPU: 4}, max_workers: few}}", "a.max_workers must be a whole number"),
    ],
)
def test_a_cluster_of_other_values_is_an_error(
    kinds: str, message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"provider: {{type: aws}}\navailable_node_types: {kinds}\n")
    assert plan(folder, cluster=str(file)) == 2
    assert message in capsys.readouterr().err


def test_a_kind_that_is_empty_takes_what_the_options_say(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("provider: {type: aws}\nmax_workers: 3\navailable_node_types: {a: }\n")
    assert plan(folder, "--cpus=4", cluster=str(file)) == 0


def test_hosts_without_a_number_of_cores_are_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder, cluster=HOSTS) == 2
    assert "add --cpus N" in capsys.readouterr().err


def test_a_trial_says_itself_how_many_ranks_it_had(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe=dual_encoder", f"--trial=dual_encoder={folder / 'run'}", "--json"]
    assert plan(folder, *words) == 0
    one = json.loads(capsys.readouterr().out)["recipes"]["dual_encoder"]["hours"]
    starts = [{"what": "start", "at": 0, "step": step, "ranks": ranks} for step, ranks in ((0, 3), (5, 2))]
    (folder / "run/starts.jsonl").write_text("\n".join(map(json.dumps, starts)))
    assert plan(folder, *words) == 0
    assert json.loads(capsys.readouterr().out)["recipes"]["dual_encoder"]["hours"] == [2 * hours for hours in one]


def test_the_folder_of_a_build_is_as_good_as_its_catalogue(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"path": ["a"]}), folder / "orphans.parquet")
    shown = []
    for place in (folder, folder / "catalogue"):
        assert main(["plan", "--catalogue", str(place), "--cluster", AWS]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "400 clips" in shown[0]


def test_the_speed_of_a_trial_on_text_alone_is_read_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe=dual_encoder", f"--trial=dual_encoder={folder / 'run'}", "--json"]
    found = []
    for name in ("clips_per_s", "pairs_per_s"):
        lines = [json.dumps({"step": step, name: 40.0}) for step in range(40)]
        (folder / "run/metrics.jsonl").write_text("\n".join(lines))
        assert plan(folder, *words) == 0
        found.append(json.loads(capsys.readouterr().out)["recipes"]["dual_encoder"]["hours"])
    assert found[0] == found[1]
