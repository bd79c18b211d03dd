"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.config.sections import OptimizerSettings

SHORT_WARMUP = 0.1  # the share of a run that a warm-up takes which would take the whole run


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down to ``final_lr`` (Calvet and Toledano 2025: one epoch, then ten).

    Attributes:
        warmup: steps until ``lr`` is reached; step 0 already moves, at ``lr / warmup``.
        steps: length of the whole run; after it the rate stays at ``final_lr``.
        is_shortened: whether the recipe asks for a warm-up that would take the whole run.
    """

    lr: float
    final_lr: float
    warmup: int
    steps: int
    is_shortened: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of step ``step`` (from 0)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        span = max(1, self.steps - 1 - self.warmup)
        progress = min(1.0, (step - self.warmup) / span)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2


def make_schedule(settings: OptimizerSettings, steps_per_epoch: int) -> Schedule:
    """The schedule of a run whose epochs have ``steps_per_epoch`` steps.

    ``epochs`` counts the warm-up: warm-up of 1 and epochs of 11 is one epoch up and ten down.  A warm-up after which
    the rate would not fall any more takes `SHORT_WARMUP` of the steps instead.
    """
    steps = settings.steps or max(1, round(settings.epochs * steps_per_epoch))
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    is_shortened = 0 < warmup >= steps - 1
    return Schedule(
        settings.lr, settings.final_lr, round(SHORT_WARMUP * steps) if is_shortened else warmup, steps, is_shortened
    )
