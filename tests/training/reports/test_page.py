"""The page of a run: of one that was killed and resumed, that failed, that goes on, and of every task."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharding.checks import checksummed_bytes
from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from tests.training.small_runs import small_recipe, write_sounds
from training import cli
from training.data.sources import open_pairs
from training.engine.distributed import Group
from training.evaluation.scores.writing import ScoringSettings, write_scores
from training.models.hub import load
from training.reports.page import PageSettings, write_run_report
from training.run.lock import LOCK
from training.run.loop import fit
from training.run.starts import STARTS, StoppedEarly

SPLIT = "clotho/evaluation"
RESUMED = ["optimizer.steps=8", "optimizer.warmup_epochs=0", "checkpoint.every=2", f"validation.split={SPLIT}"]


@pytest.fixture(scope="module")
def resumed(build: Path, group: Group, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed, and finished by another process."""
    folder = tmp_path_factory.mktemp("runs")

    def stop(state: dict[str, Any]) -> None:
        if state["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_recipe(RESUMED), Manifest.open(build), folder / "run", group, stop)
    result = write_run_report(folder / "run", str(folder / "interrupted.html"), PageSettings())
    assert (
        result["state"] == "stopped" and "It was interrupted after step 4." in (folder / "interrupted.html").read_text()
    )
    starts = folder / "run" / STARTS
    starts.write_text(starts.read_text().splitlines(keepends=True)[0])  # a process that is killed notes no end
    fit(small_recipe(RESUMED), Manifest.open(build), folder / "run", group)
    return folder / "run"


@pytest.fixture(scope="module")
def scores(resumed: Path, build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores") / "s"
    write_scores(load(resumed / "export"), Manifest.open(build), ScoringSettings(str(resumed), SPLIT), str(folder))
    return folder


def page_of(run: Path, tmp_path: Path, settings: PageSettings | None = None) -> tuple[dict[str, Any], str]:
    result = write_run_report(run, str(tmp_path / "page.html"), settings or PageSettings())
    json.dumps(result)
    return result, (tmp_path / "page.html").read_text()


def test_a_run_that_was_killed_and_resumed(resumed: Path, tmp_path: Path) -> None:
    result, page = page_of(resumed, tmp_path, PageSettings(price=3.0))
    assert (result["state"], result["steps"]) == ("finished", 8)
    events = [json.loads(line) for line in (resumed / STARTS).read_text().splitlines()]
    assert [(each["what"], each["step"]) for each in events] == [("start", 0), ("lost", 4), ("start", 4), ("end", 8)]
    seconds = [after["at"] - before["at"] for before, after in zip(events[::2], events[1::2], strict=True)]
    assert result["hours"] == pytest.approx(sum(seconds) / 3600)
    assert result["cost"] == pytest.approx(3 * sum(seconds) / 3600)
    assert 'class="mark"' in page and "went on at step 4" in page and "1 rank: 1 x" in page
    plan = json.loads((resumed / "export/config.json").read_text())["plan"]
    assert plan in page and "text to audio, mAP@10" in page and "seed: 0" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is loaded from elsewhere


def test_scores_give_intervals_and_examples_to_be_heard(
    resumed: Path, scores: Path, build: Path, tmp_path: Path
) -> None:
    _, page = page_of(resumed, tmp_path, PageSettings((str(scores),), str(build), examples=4))
    assert page.count("<audio") >= 4 and f"Evaluation on {SPLIT}" in page
    assert re.search(r"<b>\d+\.\d\d</b></td><td class=\"n soft\">\d+\.\d\d to \d+\.\d\d<", page)
    _, silent = page_of(resumed, tmp_path, PageSettings((str(scores),), examples=4))
    assert "<audio" not in silent and "With --shards" in silent
    write_sounds(tmp_path / "other", clips=4, held_out=2)
    dataset = json.loads((tmp_path / "other/dataset.json").read_bytes()) | {"plan": "of other clips"}
    (tmp_path / "other/dataset.json").write_bytes(checksummed_bytes(dataset))
    with pytest.raises(InputError, match="another build") as refusal:
        page_of(resumed, tmp_path, PageSettings((str(scores),), str(tmp_path / "other")))
    assert refusal.value.file == str(scores) and refusal.value.remedy is not None


def test_a_run_that_failed_says_why(build: Path, group: Group, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 2:
            raise InputError("<script>the disk is full")

    with pytest.raises(InputError):
        fit(small_recipe(RESUMED[:2]), Manifest.open(build), tmp_path / "run", group, watch=stop)
    result, page = page_of(tmp_path / "run", tmp_path)
    assert (result["state"], result["steps"], result["cost"]) == ("failed", 3, None)
    assert "failed at step 3: &lt;script&gt;the disk is full" in page and "<script>the" not in page
    assert "No price was given" in page and "names no split" in page


def test_a_run_that_its_sweep_ended_says_so(build: Path, group: Group, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 2:
            raise StoppedEarly("other trials of the sweep were ahead")

    with pytest.raises(StoppedEarly):
        fit(small_recipe(RESUMED[:2]), Manifest.open(build), tmp_path / "run", group, watch=stop)
    result, page = page_of(tmp_path / "run", tmp_path)
    assert (result["state"], result["steps"]) == ("stopped early", 3)
    assert "Its sweep ended it after step 3: other trials of the sweep were ahead." in page and ">failed" not in page


def test_a_run_in_whose_folder_a_process_trains(resumed: Path, tmp_path: Path) -> None:
    events = (resumed / STARTS).read_text().splitlines(keepends=True)
    (tmp_path / "run").mkdir()
    for name in ("recipe.yaml", "metrics.jsonl"):
        (tmp_path / "run" / name).write_bytes((resumed / name).read_bytes())
    (tmp_path / "run" / STARTS).write_text("".join(events[:3]))
    assert page_of(tmp_path / "run", tmp_path)[0]["state"] == "stopped"
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held'); "
    hold += "sys.stdout.flush(); input()"
    words = [sys.executable, "-c", hold, str(tmp_path / "run" / LOCK)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        result, page = page_of(tmp_path / "run", tmp_path)
        other.communicate(b"\n")
    assert result["state"] == "training now" and "as it is now" in page


def test_a_run_that_has_not_taken_a_step(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/recipe.yaml").write_text("seed: 1\n")
    result, page = page_of(tmp_path / "new", tmp_path)
    assert (result["state"], result["steps"]) == ("stopped", 0) and "No step has been logged" in page


def test_a_task_without_scores_is_not_sent_to_them(tmp_path: Path) -> None:
    """As captioning and classification, whose figures have no chance and no direction."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("task: {name: captioning}\nvalidation: {split: a/b, metric: token_accuracy}\n")
    figures = {"log_likelihood": -4.5, "token_accuracy": 0.25}
    (run / "metrics.jsonl").write_text(json.dumps({"step": 0, "loss": 1.0, "validation": figures}) + "\n")
    _, page = page_of(run, tmp_path)
    assert "25.00 %" in page and "-4.5" in page
    assert "earshot scores" not in page and "by chance" not in page


def test_a_run_on_sentences_counts_pairs_and_not_clips(
    group: Group, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text("sent0,sent1\n" + "".join(f"a dog {n},hound {n}\n" for n in range(6)))
    data = f"{{texts: {{dogs: {tmp_path}/pairs.csv}}, train: [{{split: dogs}}], batch_size: 4, workers: 0}}"
    task = ("task={name: text_pairs, hard_negatives: false}", "audio=null", "head=null", "validation.split=null")
    recipe = small_recipe([*task, f"data={data}", "optimizer.steps=2", "optimizer.warmup_epochs=0"])
    fit(recipe, open_pairs(recipe, None), tmp_path / "run", group)
    assert "6 pairs an epoch" in capsys.readouterr().err
    _, page = page_of(tmp_path / "run", tmp_path)
    assert "pairs a second" in page and ">pairs</th>" in page and "clips" not in page.partition("<h2>Settings")[0]


def test_a_run_of_an_earlier_version(resumed: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("recipe.yaml", "metrics.jsonl"):
        (tmp_path / "run" / name).write_bytes((resumed / name).read_bytes())
    result, page = page_of(tmp_path / "run", tmp_path)
    assert result["hours"] is None and "did not note machines" in page and "the last that were measured" in page


def test_what_is_no_run_is_refused(resumed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run-report", str(tmp_path)]) == 2
    assert "no run is here" in capsys.readouterr().err
    assert cli.main(["run-report", str(resumed), "--price", "nan"]) == 2
    assert cli.main(["run-report", str(resumed), "--shards", "x"]) == 2
    assert cli.main(["run-report", str(resumed)]) == 0
    assert (resumed / "report.html").is_file() and "finished: 8 steps" in capsys.readouterr().out
