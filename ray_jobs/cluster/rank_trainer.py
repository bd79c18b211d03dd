"""Ray Train's trainer, without what cannot work on a cluster that has no dashboard."""

from __future__ import annotations

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

PATIENCE_S = 10


class RankTrainer(TorchTrainer):
    """Starts an actor that frees the nodes of a trainer that was killed only where there is a dashboard.

    That actor asks the dashboard every second whether the trainer lives, and says each time that nobody answers.  A
    cluster without a dashboard (``--address local``, cluster/slurm.sbatch) ends with its trainer, and needs no actor.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        if dashboard_answers():
            return callbacks
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]


def dashboard_answers() -> bool:
    """Whether the cluster to which this process belongs has a dashboard that answers."""
    try:
        list_nodes(address=ray.get_runtime_context().gcs_address, limit=1, timeout=PATIENCE_S)
    except RayStateApiException:
        return False
    return True
