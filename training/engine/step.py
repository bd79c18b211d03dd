"""One training step of any task on every rank.

Two ways to compute the same step:

- plain: encode the rank's samples, score all pairs of the global batch, one backward pass;
- cached (``engine.chunk``): encode chunk by chunk without gradient, score all pairs, then encode each chunk again with
  gradient and give it its share of the loss's gradient (GradCache, arXiv 2101.06983), together with the chunk's own
  local losses.  Dropout, patchout and masks are the same both times, so the gradient is exact, and memory is that of
  one chunk at any batch size.  The first chunk keeps its graph and is encoded once, so that of n chunks n - 1 are
  encoded twice.

DeepSpeed averages gradients over ranks; pair losses and local losses are scaled for that.  Under ZeRO 1-3 a gradient
is complete only after the backward pass at the accumulation boundary, so all chunks but the last run with the boundary
off (without that, ZeRO 1 and 2 keep the last chunk alone, silently).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import deepspeed
import torch
from torch import Tensor, nn

from training.config.sections import Recipe
from training.data.batch import Columns
from training.engine.chunks import Cotangents, joined
from training.engine.distributed import Group
from training.engine.launch import join_deepspeed
from training.engine.optimizers import first_state, freeze, make_optimizer, moment_names, parameter_groups
from training.engine.recompute import recompute_blocks
from training.engine.schedule import Schedule
from training.engine.zero3 import Sharded, configuration
from training.models.encoders.randomness import splitmix64
from training.objectives.pairs.tiled import Items, Teacher, global_loss
from training.tasks.base import Outputs, PairTerm, Task

Result = TypeVar("Result")


@dataclass(frozen=True)
class StepResult:
    """What a step did; the same on every rank.

    Attributes:
        loss: the loss of the global batch.
        parts: each term of the loss by name, before its weight.
        grad_norm: the norm of all parameters' gradient before clipping; infinite or NaN if it is not finite.
        applied: False if the step was skipped because loss or gradient was not finite.
        sides: this rank's sides, detached.
    """

    loss: float
    parts: dict[str, float]
    grad_norm: float
    applied: bool
    sides: dict[str, Items]


class Trained(nn.Module):
    """A task as the module that DeepSpeed trains: every use of its parameters passes its forward."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, call: Callable[[Task], Any]) -> Any:
        return call(self.task)


class Engine:
    """Trains a task as the recipe says; every rank makes one and calls the same methods.

    Args:
        task: the task, with its initial weights; the engine moves and shards it.
        recipe: sections ``optimizer``, ``engine`` and the seed.
        schedule: learning rate of each step.
        group: the ranks, from `training.engine.launch.ranks`.
        moments: the optimizer's moments by parameter name, to continue from.
        step: steps taken so far.
        updates: how many of those moved the weights (the optimizer's own counter).
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        schedule: Schedule,
        group: Group,
        moments: Mapping[str, Mapping[str, Tensor]] | None = None,
        step: int = 0,
        updates: int = 0,
    ) -> None:
        self.recipe, self.schedule, self.group = recipe, schedule, group
        self.steps_taken, self.updates = step, updates
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        torch.set_float32_matmul_precision(recipe.engine.matmul)
        self.task = task.to(self.device)
        freeze(task, recipe.optimizer)
        if recipe.engine.frozen == "bf16":
            for parameter in task.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()
        if recipe.engine.activation_checkpointing:
            recompute_blocks(task)
        if recipe.engine.compile:
            for tower in task.towers().values():
                for block in tower.blocks():
                    block.compile()
        moment_list = moment_names(recipe.optimizer, recipe.engine.ema)
        join_deepspeed()
        self.deepspeed, *_ = deepspeed.initialize(
            model=Trained(task),
            optimizer=make_optimizer(parameter_groups(task, recipe.optimizer), recipe.optimizer, recipe.engine.ema),
            config=configuration(recipe, group.size),
            dist_init_required=False,
        )
        self.sharded = Sharded(self.deepspeed, recipe.engine.zero, group, task.names(), moment_list)
        terms = task.terms().values()
        scorers = [term.scorer for term in terms if isinstance(term.scorer, nn.Module)]
        self.sharded.keep_whole([*scorers, *(term.loss for term in terms)])
        first = functools.partial(first_state, moments=moment_list, steps=updates)
        self.sharded.start_moments(first, moments or {})

    def step(self, batch: Columns) -> StepResult:
        """Take one step with this rank's part of a global batch; call it on every rank."""
        self.deepspeed.train()
        batch = batch.to(self.device).take(batch.valid)
        rate = self.schedule.rate(self.steps_taken)
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.sharded.hold_whole()
        loss, parts, sides = self._cached(batch) if self.recipe.engine.chunk else self._plain(batch)
        norm, applied = self.sharded.update()
        self.steps_taken += 1
        self.updates += applied
        return StepResult(loss, parts, norm, applied, sides)

    def _plain(self, batch: Columns) -> tuple[float, dict[str, float], dict[str, Items]]:
        self._seed(0)
        outputs = self._outputs(batch)
        pairs = self._call(functools.partial(self._pair_losses, outputs=outputs))
        counts = self._counts(outputs)
        loss = self._weighted(pairs) + self._local_share(outputs, counts)
        parts = _floats(pairs) | self._local_values(outputs, counts)
        value = self._value(parts)
        self.deepspeed.set_gradient_accumulation_boundary(True)
        self.deepspeed.backward(all_or_nothing(loss, value))
        return value, parts, _detached(outputs.sides)

    def _cached(self, batch: Columns) -> tuple[float, dict[str, float], dict[str, Items]]:
        chunks = self._chunks(batch)
        encoded = []
        for number, chunk in enumerate(chunks):
            self._seed(number)
            with torch.set_grad_enabled(number == 0):  # the first chunk's graph stays for its backward pass
                encoded.append(self._outputs(chunk))
        whole = joined(encoded)
        # Not through DeepSpeed's forward: this gradient is taken by hand, and reduced with the last chunk's.
        pairs = self._pair_losses(self.task, outputs=whole)
        counts = self._counts(whole)
        parts = _floats(pairs) | self._local_values(whole, counts)
        value = self._value(parts)
        shares, own = Cotangents.of(self._weighted(pairs), whole.sides, self.trained())
        for number, chunk in enumerate(chunks):
            if number == 0:
                again = encoded[0]
            else:
                self._seed(number)
                again = self._outputs(chunk, fixed=False)
            surrogate = shares.chunk(again.sides, encoded[:number]) + self._local_share(again, counts)
            # where no side is trained, only a scorer's or the loss's own numbers, the first chunk has everything
            last = number == len(chunks) - 1 or not surrogate.requires_grad
            if number == 0:  # the first chunk must touch every parameter: ZeRO-3 clears only what it touches
                for parameter, gradient in own:
                    surrogate = surrogate + (parameter * gradient).sum()
            self.deepspeed.set_gradient_accumulation_boundary(last)
            self.deepspeed.backward(all_or_nothing(surrogate, value))
            if last:
                break
        return value, parts, _detached(whole.sides)

    def _chunks(self, batch: Columns) -> list[Columns]:
        """The rank's samples in chunks; every rank has as many as the fullest one, for ZeRO-3 gathers in each."""
        size = self.recipe.engine.chunk
        count = int(self.group.max(torch.tensor(-(-len(batch) // size)), "chunks"))
        return [batch.take(slice(i * size, (i + 1) * size)) for i in range(max(count, 1))]

    def _outputs(self, batch: Columns, fixed: bool = True) -> Outputs:
        """The task's outputs.  A rank without samples encodes a placeholder and discards its outputs."""
        full = batch if len(batch) else batch.placeholder()

        def call(task: Task) -> Outputs:
            with self.precision():
                outputs: Outputs = task(full)
                if not len(batch):
                    outputs = outputs.without_samples()
                if fixed:
                    outputs.sides |= task.fixed_sides(batch)
                return outputs

        return self._call(call)

    def _call(self, call: Callable[[Task], Result]) -> Result:
        """A function of the task, inside DeepSpeed's forward pass."""
        result: Result = self.deepspeed(call)
        return result

    def _pair_losses(self, task: Task, outputs: Outputs) -> dict[str, Tensor]:
        """The value of each pair term, with gradient."""
        return {name: _pair_loss(term, outputs.sides, self.group) for name, term in task.terms().items()}

    def _weighted(self, pairs: Mapping[str, Tensor]) -> Tensor:
        terms = self.task.terms()
        total = torch.zeros((), device=self.device)
        for name, value in pairs.items():
            total = total + (value if terms[name].weight == 1 else terms[name].weight * value)
        return total

    def _counts(self, outputs: Outputs) -> dict[str, float]:
        """How many samples each local term counts in the global batch."""
        if not outputs.local:
            return {}
        counts = torch.stack([found.count.detach().double().cpu() for found in outputs.local.values()])
        return dict(zip(outputs.local, self.group.sum(counts, "counts of local losses").tolist(), strict=True))

    def _local_share(self, outputs: Outputs, counts: Mapping[str, float]) -> Tensor:
        """The local losses of the samples here, scaled so that the average over ranks is right."""
        total = torch.zeros((), device=self.device)
        for name, found in outputs.local.items():
            factor = self.task.weights().get(name, 1.0) * self.group.size / max(counts[name], 1.0)
            total = total + factor * found.total
        return total

    def _local_values(self, outputs: Outputs, counts: Mapping[str, float]) -> dict[str, float]:
        """The value of each local term over the global batch."""
        if not counts:
            return {}
        sums = torch.stack([outputs.local[name].total.detach().double().cpu() for name in counts])
        totals = self.group.sum(sums, "local losses").tolist()
        return {name: total / max(counts[name], 1.0) for name, total in zip(counts, totals, strict=True)}

    def _value(self, parts: Mapping[str, float]) -> float:
        """The loss: the weighted sum of its parts."""
        terms, weights = self.task.terms(), self.task.weights()
        factors = {name: terms[name].weight if name in terms else weights.get(name, 1.0) for name in parts}
        return sum(factors[name] * value for name, value in parts.items())

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Autocast to bfloat16 for encoders and heads where the recipe says so; trained weights stay float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.engine.dtype == "bf16"):
            yield

    def _seed(self, chunk: int) -> None:
        """Make what a model draws from torch's own stream a function of (seed, step, rank, chunk).

        So it is the same in a chunk's second pass and in a resumed run.
        """
        base = torch.tensor([self.recipe.seed])
        for number in (self.steps_taken, self.group.rank, chunk):
            base = splitmix64(base, torch.tensor([number]))
        torch.manual_seed(int(base) & 0x7FFFFFFFFFFFFFFF)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that move."""
        return [parameter for parameter in self.task.parameters() if parameter.requires_grad]

    def infer(self, call: Callable[[Task], Result], training: bool = False) -> Result:
        """A function of the task without gradient, in evaluation mode unless ``training``.

        Every rank must call it equally often.
        """
        self.deepspeed.train(training)
        with torch.no_grad(), self.precision():
            return self._call(call)

    def parameters(self) -> dict[str, Tensor]:
        """Every trained parameter, whole, and every saved buffer, on the CPU by name; on the first rank alone."""
        values = self.sharded.parameters(trained=True)
        if self.group.rank == 0:
            values |= {name: value.detach().cpu().clone() for name, value in self.task.saved_buffers().items()}
        return values

    def frozen_parameters(self) -> dict[str, Tensor]:
        """Every parameter that is not trained, whole, on the CPU by name; on the first rank alone."""
        return self.sharded.parameters(trained=False)

    def optimizer_moments(self) -> dict[str, dict[str, Tensor]]:
        """Moment to parameter name to the whole moment on the CPU; on the first rank alone."""
        return self.sharded.moments()

    def close(self) -> None:
        """Give back what DeepSpeed holds; the ranks stay joined."""
        self.sharded.close()


def all_or_nothing(loss: Tensor, value: float) -> Tensor:
    """The loss, or NaN if its value over the global batch is not finite, so that the gradient is NaN as well.

    The optimizer then leaves the step out on every rank.
    """
    return loss if math.isfinite(value) else loss * math.nan


def _pair_loss(term: PairTerm, sides: Mapping[str, Items], group: Group) -> Tensor:
    teachers = [
        Teacher(teacher.scorer, sides[teacher.rows].side, sides[teacher.columns].side) for teacher in term.teachers
    ]
    return global_loss(term.scorer, term.loss, sides[term.rows], sides[term.columns], group, teachers)


def _floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in values.items()}


def _detached(sides: Mapping[str, Items]) -> dict[str, Items]:
    """The same tensors without their gradient graph."""
    return {name: Items(tuple(tensor.detach() for tensor in items.side), items.ids) for name, items in sides.items()}
