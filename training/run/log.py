"""The figures of a run: one JSON line for each step, and TensorBoard or Weights & Biases as well."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError
from training.config.sections import LogSettings
from training.engine.checkpoint import writing

METRICS = "metrics.jsonl"
STOPPED_EARLY = "stopped-early"  # a file in the folder of a run that its sweep ended, because other runs were ahead
NOT_FINITE = "nonfinite.jsonl"  # the steps of a run whose loss or gradient was not finite, with their samples


class MetricsLog:
    """Writes ``metrics.jsonl`` of a run; one rank has one.

    A resumed run takes some steps again.  Their lines are removed first, so each step has one line.

    Args:
        run: the folder of the run.
        step: how many steps the run has taken.
        settings: which other logs to write.
        watch: called with each line; None: nobody is.
    """

    def __init__(
        self, run: Path, step: int, settings: LogSettings, watch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.watch = watch
        self.path = run / METRICS
        _keep_steps_below(self.path, step)
        if (run / NOT_FINITE).is_file():
            _keep_steps_below(run / NOT_FINITE, step)
        self.file = self.path.open("a", encoding="utf-8")
        self.tensorboard = _tensorboard(run, step) if settings.tensorboard else None
        self.wandb = _wandb(run, settings.wandb, step) if settings.wandb else None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line, which survives the end of the process once this returns.  NaN and infinity become null.

        Raises:
            InputError: the run's folder has vanished, or the line cannot be written.
        """
        if not self.path.exists():  # else lines would be written to a file that nobody can open
            raise InputError("the run's folder has vanished, or its log was removed", file=self.path)
        with writing(self.path):
            self.file.write(json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n")
            self.file.flush()
        numbers = {
            name: value
            for name, value in flatten(record).items()
            if isinstance(value, int | float) and name not in ("step", "time")
        }
        if self.tensorboard is not None:
            for name, value in numbers.items():
                self.tensorboard.add_scalar(name, value, record["step"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=record["step"])
        if self.watch is not None:
            self.watch(dict(record))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every line was flushed; the one of a full disk is flushed again here
            self.file.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping whose keys are joined by slashes."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            result |= flatten(value, f"{name}/")
        else:
            result[name] = value
    return result


def _plain(value: Any) -> Any:
    """``value`` with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; see `records_of`."""
    return records_of(path.read_bytes()) if path.is_file() else []


def records_of(data: bytes) -> list[dict[str, Any]]:
    """The records in the bytes of a ``metrics.jsonl``."""
    return [record for record in json_lines(data) if "step" in record]


def speed_name(unit: str) -> str:
    """The name of a step's speed in ``metrics.jsonl``: ``clips_per_s``, or ``pairs_per_s`` of a run on text alone."""
    return f"{unit}_per_s"


def speed_of(record: Mapping[str, Any]) -> float | None:
    """The speed of a step, whatever it counts; None if none was noted."""
    found = next((value for name, value in record.items() if name.endswith("_per_s")), None)
    return float(found) if found else None


def json_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """The mappings in lines of JSON.  Broken lines, which a killed process or a full disk leaves, are skipped."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            continue
        if isinstance(record, dict):
            yield record


def _keep_steps_below(path: Path, step: int) -> None:
    records = [record for record in read_records(path) if record["step"] < step]
    draft = path.with_name(f".{path.name}")
    draft.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    os.replace(draft, path)  # noqa: PTH105 (atomic, also over an existing file)


def _tensorboard(run: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=step, flush_secs=30)


def check_log_settings(settings: LogSettings) -> None:
    """``InputError`` if a log cannot be written, before anything else begins."""
    if settings.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise InputError(
            "log.wandb is set, and the package wandb is not installed",
            value=settings.wandb,
            remedy="pip install wandb, or take log.wandb out; metrics.jsonl and TensorBoard are written without it",
        )


def _wandb(run: Path, project: str, step: int) -> Any:
    import wandb  # type: ignore[import-not-found, unused-ignore]

    # A resumed run keeps its id, even if its folder was moved.  The name is no id: many runs have the same one.
    file = run / "wandb.id"
    if step == 0 or not file.is_file():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    run_id = file.read_text(encoding="utf-8")
    return wandb.init(project=project, dir=str(run), name=run.name, resume="allow", id=run_id)
