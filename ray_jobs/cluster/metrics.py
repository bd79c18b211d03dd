"""Figures of builds and of training as metrics of the cluster, which Prometheus collects from every node's agent.

Every figure has the label ``run``: the last part of the address that the job writes to; in a sweep or a table of a
paper, the values that a trial tries or the name of a run, and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

BUILD = {
    "earshot_done": "Units of this stage of a shard build that are done",
    "earshot_total": "Units of this stage in total",
    "earshot_rate": "Units a second since the stage began",
}
FAILURES = {"earshot_failed": "Units of this stage that failed with this error since the last start"}
TRAINING = {
    "earshot_train_step": "Steps that the run has taken",
    "earshot_train_loss": "Loss of the newest step",
    "earshot_train_clips_per_s": "Clips a second of the newest step, of all ranks",
    "earshot_train_pairs_per_s": "Pairs of sentences a second, of a run that trains on text alone",
    "earshot_train_data_wait": "Share of the newest step in which it waited for data",
    "earshot_train_damaged": "Damaged samples that were left out since the last start",
}


def run_label(address: str) -> str:
    """The label of a build or a run: the last part of its folder or address."""
    return address.rstrip("/").rpartition("/")[2] or address


class Gauges:
    """Gauges with the label ``run`` and others.

    Args:
        about: the name of each gauge, and what it says.
        run: the label's value.
        labels: names of the other labels.
    """

    def __init__(self, about: Mapping[str, str], run: str, labels: tuple[str, ...] = ()) -> None:
        from ray.util.metrics import Gauge

        self._gauges = {name: Gauge(name, text, ("run", *labels)) for name, text in about.items()}
        self._run = run

    def set(self, values: Mapping[str, Any], **labels: str) -> None:
        """Set the gauges for which there is a number."""
        for name, gauge in self._gauges.items():
            value = values.get(name)
            if isinstance(value, int | float):
                gauge.set(float(value), {"run": self._run, **labels})


def watching(run: str) -> Callable[[Mapping[str, Any]], None]:
    """A function that sets the training metrics of ``run`` from a line of its ``metrics.jsonl``."""
    gauges = Gauges(TRAINING, run)

    def watch(record: Mapping[str, Any]) -> None:
        gauges.set(of_step(record))

    return watch


def of_step(record: Mapping[str, Any]) -> dict[str, Any]:
    """The training metrics of a line of ``metrics.jsonl``."""
    names = ("loss", "clips_per_s", "pairs_per_s", "data_wait", "damaged")
    return {"earshot_train_step": record["step"] + 1} | {f"earshot_train_{name}": record.get(name) for name in names}
