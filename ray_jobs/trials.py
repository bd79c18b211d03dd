"""The trials of a sweep on Ray Tune, which decides when and where each of them runs and which of them end early.

A trial is an ordinary run of one process.  Ray Tune's own files go to a temporary folder and are never read, because
they are pickles.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from ray_jobs.cluster.metrics import watching
from ray_jobs.cluster.rank_failures import final_error
from ray_jobs.cluster.ranks import in_one_line
from ray_jobs.sweeps import BEHIND, FINISHED, LEFT, Sweep, Trial
from sharding.common.sizes import quantity
from training.config.loading import parse_recipe
from training.config.sections import Recipe
from training.data.sampling.order import Order
from training.engine.launch import ranks
from training.engine.schedule import make_schedule
from training.run.log import STOPPED_EARLY
from training.run.loop import fit
from training.run.progress import StatusLine
from training.run.starts import StoppedEarly
from training.tasks import task_module

# Tune's logs would repeat those of the run, its handler of Ctrl-C would go on, and relative paths are the user's.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one names Tune's temporary folder whatever `verbose` says
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_trials(
    sweep: Sweep, resources: dict[str, float], labels: dict[str, str] | None, restarts: int
) -> dict[Trial, str]:
    """Run the trials that are not finished, as many side by side as there is room for.

    Args:
        sweep: what is tried.
        resources: the resources of each trial.
        labels: the labels of the nodes on which trials run; None: all nodes.
        restarts: after which a trial is given up, where its process or node died.

    Returns:
        why trials failed.
    """
    os.environ.update(_ENVIRONMENT)
    every = range(len(sweep.trials))
    # those that are done say at once what they reached, with which the others are compared
    asked = [number for number in every if sweep.stop_early or sweep.standing(sweep.trials[number]).state != FINISHED]
    if not asked:
        return {}
    selector = {} if labels is None else {"bundle_label_selector": [labels]}
    # a third of the trials goes on after 10 and after 30 % of their steps
    early = ASHAScheduler("percent", max_t=89, grace_period=10, reduction_factor=3, stop_last_trials=False)
    with tempfile.TemporaryDirectory(prefix="earshot-tune-") as scratch:
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_try, sweep=sweep), tune.PlacementGroupFactory([resources], **selector)
            ),
            param_space={"trial": tune.grid_search(asked)},
            tune_config=tune.TuneConfig(metric="value", mode="max", scheduler=early if sweep.stop_early else None),
            run_config=tune.RunConfig(
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=restarts),
                callbacks=[_Watch(sweep, len(asked))],
                verbose=0,
            ),
        ).fit()
        failed = {}
        for number, result in zip(asked, results, strict=True):
            why = in_one_line(result.error) if result.error else (result.metrics or {}).get("failed")
            if why:
                failed[sweep.trials[number]] = why
    return failed


def _try(config: dict[str, int], sweep: Sweep) -> None:
    """Carry out one trial; Ray Tune calls this in its own process for each trial."""
    trial = sweep.trials[config["trial"]]
    try:
        _train(trial, parse_recipe(sweep.recipes[config["trial"]]), sweep)
    except Exception as error:
        final = final_error(error)
        if final is None:  # another start may help
            raise
        tune.report({"value": -math.inf, "percent": 0, "failed": str(final)})


def _train(trial: Trial, recipe: Recipe, sweep: Sweep) -> None:
    """Train a trial to its end from where it is, and report each validation, those of earlier starts first."""
    source = task_module(recipe).open_source(recipe, sweep.shards)
    order = Order(source.table, recipe.data, recipe.seed)
    steps = make_schedule(recipe.optimizer, order.steps_per_epoch).steps
    best, state = -math.inf, sweep.standing(trial).state

    def report(step: int, value: float | None) -> None:
        nonlocal best
        if value is not None:
            best = max(best, value)
            try:
                tune.report({"value": best, "percent": 100 * step / steps, "step": step})
            except SystemExit as end:  # Ray Tune ends a trial that falls behind; the run notes why it ended
                raise StoppedEarly("other trials of the sweep were ahead") from end

    def saved(checkpoint: dict[str, Any]) -> None:
        report(checkpoint["step"], checkpoint["validation"].get(sweep.metric))

    for step, value in sweep.validations(trial):
        report(step, value)
    if state == FINISHED or (state == BEHIND and sweep.stop_early):
        return
    sweep.run(trial).remove(STOPPED_EARLY)
    with ranks() as group:
        fit(recipe, source, f"{sweep.out}/{trial.folder}", group, saved, sweep.trust_code, watching(trial.label))


class _Watch(tune.Callback):  # type: ignore[misc, unused-ignore]
    """Says how trials come along, and notes those that are stopped early."""

    def __init__(self, sweep: Sweep, count: int) -> None:
        self.sweep, self.line, self.done = sweep, StatusLine("trials", count), 0

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if "step" in result:
            self._say(trial, f"{self.sweep.metric} {result['value']:.4f} after {quantity(result['step'], 'step')}")

    def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        self._say(trial, "died; it starts again from its last checkpoint")

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        one, why = self.sweep.trials[trial.config["trial"]], (trial.last_result or {}).get("failed", "")
        state = self.sweep.standing(one, why).state
        if state == LEFT:  # the scheduler has ended it
            state = BEHIND
            self.sweep.run(one).write(STOPPED_EARLY, b"")
        self._end(trial, f"{state}: {why}" if why else state)

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
        self._end(trial, "failed, and is given up")

    def _end(self, trial: Any, how: str) -> None:
        self.done += 1
        self._say(trial, how)
        self.line.update(self.done)

    def _say(self, trial: Any, text: str) -> None:
        self.line.say(f"  {self.sweep.trials[trial.config['trial']].label}: {text}")
