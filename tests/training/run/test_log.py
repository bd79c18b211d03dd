"""``metrics.jsonl`` and its companions, as killed runs and full disks leave them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sharding.common.errors import InputError
from training.config.sections import LogSettings
from training.run import log as metrics
from training.run.log import NOT_FINITE, MetricsLog

PLAIN = LogSettings(tensorboard=False)


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1.0})


def test_a_run_resumes_whatever_lines_its_log_holds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [line(0), "null", "7", "{}", '{"step": 1, "lo', line(1), line(2)]
    path.write_bytes("\n".join(rows).encode() + b"\n\xff\xfe\n")
    MetricsLog(tmp_path, 2, PLAIN).close()
    assert path.read_text().splitlines() == [line(0), line(1)]


def test_steps_that_are_taken_again_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / NOT_FINITE).write_text("\n".join(map(line, (1, 5, 8))) + "\n")
    MetricsLog(tmp_path, 5, PLAIN).close()
    assert [record["step"] for record in metrics.read_records(tmp_path / NOT_FINITE)] == [1]


def test_a_run_keeps_its_id_and_another_run_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases continues a run that was moved, and not a new run in the same folder."""
    seen: list[str] = []

    def init(**options: Any) -> SimpleNamespace:
        seen.append(options["id"])
        return SimpleNamespace(log=lambda *a, **k: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    settings = LogSettings(tensorboard=False, wandb="earshot")
    (tmp_path / "run").mkdir()
    MetricsLog(tmp_path / "run", 0, settings).close()
    (tmp_path / "run").rename(tmp_path / "moved")
    MetricsLog(tmp_path / "moved", 3, settings).close()
    MetricsLog(tmp_path / "moved", 0, settings).close()
    assert seen[0] == seen[1] != seen[2]


def test_whoever_watches_gets_every_line(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    log = MetricsLog(tmp_path, 0, PLAIN, seen.append)
    for step in range(3):
        log.write({"step": step, "loss": 1.0})
    log.close()
    assert [record["step"] for record in seen] == [0, 1, 2]


def test_a_full_disk_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, PLAIN)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        log.file.close()
        log.file = full
        with pytest.raises(InputError, match="No space left on device") as caught:
            log.write({"step": 0, "loss": 1.0})
        log.close()
    assert caught.value.file == tmp_path / "metrics.jsonl" and "same command" in str(caught.value)
