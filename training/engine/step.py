"""One training step on every rank: the only module that imports DeepSpeed.

Two ways to compute the same step:

- plain: encode the rank's samples, score all pairs of the global batch, one backward pass;
- cached (``engine.chunk``): encode chunk by chunk without gradient, score all pairs, then encode each chunk
  again with gradient and hand it its share (GradCache, arXiv 2101.06983).  Dropout, patchout and masks belong
  to the samples, so both times they are those of the plain step: the gradient is exact and the same, and memory
  is that of one chunk at any batch size.

DeepSpeed averages gradients over ranks, and `training.objectives.pairs.tiled` scales for that.  Under ZeRO 1-3 a
gradient is complete only after the backward pass at the accumulation boundary, so all chunks but the last
run with the boundary off (without that, ZeRO 1 and 2 keep the last chunk alone, silently).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from sharding.common.processes import die_with_parent
from training.config.sections import Recipe
from training.data.batch import Batch
from training.engine.chunks import Sides, detached, joined, rows, silence, weighted_sum
from training.engine.distributed import Group, LocalGroup
from training.engine.distributed import connect as connect_ranks
from training.engine.optimizers import first_state, freeze, make_optimizer, moment_names, parameter_groups
from training.engine.schedule import Schedule
from training.engine.system import System, recompute_blocks
from training.engine.traffic import Counted
from training.evaluation.encoding import SideEncoder
from training.models.encoders.randomness import splitmix64
from training.models.retrieval import RetrievalModel
from training.objectives.pairs.base import PairLoss
from training.objectives.pairs.relations import batch_ids
from training.objectives.pairs.tiled import global_loss

_LINEAR = nn.functional.linear
HELD = -1  # stands for a module that never ends, among the modules that DeepSpeed counts for a parameter


@dataclass(frozen=True)
class StepResult:
    """What a step did; the same on every rank.

    Attributes:
        loss: of the global batch.
        grad_norm: of all parameters' gradient before clipping; infinite or NaN where it is not finite.
        applied: False where the step was skipped because loss or gradient was not finite.
        sides: this rank's audio and text sides, detached.
    """

    loss: float
    grad_norm: float
    applied: bool
    sides: Sides


@contextlib.contextmanager
def ranks() -> Iterator[Group]:
    """Join the ranks that the launcher started (or be alone), and leave them properly at the end.

    torchrun, the deepspeed launcher and Ray Train say by environment variables who is who.
    """
    made = not dist.is_initialized()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    group = connect_ranks(backend)
    if made and group.size > 1:  # a rank whose launcher was killed would go on writing beside the run that goes on
        die_with_parent()
    if isinstance(group, LocalGroup) and made:  # DeepSpeed wants a process group, if only of one
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")
    # gloo does without the shared-memory kernel, which DeepSpeed would compile here and now
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    plain = deepspeed.comm.comm.cdb
    deepspeed.comm.comm.cdb = Counted(plain, group)
    try:
        yield group
    finally:
        deepspeed.comm.comm.cdb = plain
        if made:  # a process that ends with its group open aborts
            deepspeed.comm.destroy_process_group()
            with contextlib.suppress(Exception):
                dist.destroy_process_group()


class Engine:
    """Trains a model as the recipe says; every rank makes one and calls the same methods.

    Args:
        model: with its weights as they are to start from; the engine moves and shards it.
        loss: over all pairs.
        recipe: sections ``optimizer``, ``engine`` and the seed.
        schedule: learning rate of each step.
        group: the ranks, from `ranks`.
        moments: the optimizer's moments by parameter name, to go on from.
        step: steps taken so far.
        updates: of those, how many moved the weights (the optimizer's own counter).
    """

    def __init__(
        self,
        model: RetrievalModel,
        loss: PairLoss,
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
        self.system = System(model, loss).to(self.device)
        names = self.system.names()
        freeze(model, names, recipe.optimizer)
        if recipe.engine.activation_checkpointing:
            recompute_blocks(model)
        if recipe.engine.compile:
            for block in (*model.audio.blocks(), *model.text.blocks()):
                block.compile()
        groups = parameter_groups(model, names, recipe.optimizer)
        self.moments = moment_names(recipe.optimizer, recipe.engine.ema)
        optimizer = make_optimizer(groups, recipe.optimizer, recipe.engine.ema)
        self.deepspeed, *_ = deepspeed.initialize(
            model=self.system,
            optimizer=optimizer,
            config=_configuration(recipe, group.size),
            dist_init_required=False,
        )
        self.stage = recipe.engine.zero
        self._whole: list[Any] = []
        if self.stage == 3:
            self._keep_whole(self.system.model.head, self.system.loss)
        self._start_moments(moments or {})

    @property
    def model(self) -> RetrievalModel:
        return self.system.model

    def step(self, batch: Batch) -> StepResult:
        """Take one step with this rank's part of a global batch; call it on every rank."""
        self.system.train()
        batch = rows(batch.to(self.device), batch.valid)
        rate = self.schedule.rate(self.steps_taken)
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self._hold_whole()
        loss, sides = self._cached(batch) if self.recipe.engine.chunk else self._plain(batch)
        norm, applied = self._update()
        self.steps_taken += 1
        self.updates += applied
        return StepResult(loss, norm, applied, sides)

    def _plain(self, batch: Batch) -> tuple[float, Sides]:
        self._seed(0)
        audio, text = self._encode(batch)
        loss = self.deepspeed(self._objective(audio, text, batch))
        self.deepspeed.set_gradient_accumulation_boundary(True)
        self.deepspeed.backward(_all_or_nothing(loss))
        return float(loss.detach()), (detached(audio), detached(text))

    def _cached(self, batch: Batch) -> tuple[float, Sides]:
        size = self.recipe.engine.chunk
        # Every rank runs as many chunks as the fullest one: ZeRO-3 gathers parameters in every forward pass.
        count = int(self.group.max(torch.tensor(-(-len(batch) // size)), "chunks"))
        chunks = [rows(batch, slice(i * size, (i + 1) * size)) for i in range(max(count, 1))]
        encoded = []
        with torch.no_grad():
            for number, chunk in enumerate(chunks):
                self._seed(number)
                encoded.append(self._encode(chunk))
        audio, text = joined(encoded)
        # Not through DeepSpeed's forward: this gradient is taken by hand, and reduced with the last chunk's.
        loss = self.system(self._objective(audio, text, batch))
        trained = self.trained()
        leaves = [tensor for tensor in (*audio, *text) if tensor.requires_grad]
        gradients = torch.autograd.grad(_all_or_nothing(loss), [*leaves, *trained], allow_unused=True)
        cotangent = {id(leaf): gradient for leaf, gradient in zip(leaves, gradients, strict=False)}
        shares = [cotangent.get(id(whole)) for whole in (*audio, *text)]
        own = [(p, g) for p, g in zip(trained, gradients[len(leaves) :], strict=True) if g is not None]
        start = 0
        for number, chunk in enumerate(chunks):
            self._seed(number)
            again = self._encode(chunk)
            surrogate = weighted_sum((*again[0], *again[1]), shares, start, self.device)
            # where no side is trained, only the loss's own numbers or a head's, the first chunk has it all
            last = number == len(chunks) - 1 or not surrogate.requires_grad
            if number == 0:  # the first chunk must touch every parameter: ZeRO-3 clears only what it touches
                for parameter, gradient in own:
                    surrogate = surrogate + (parameter * gradient).sum()
            start += len(chunk)
            self.deepspeed.set_gradient_accumulation_boundary(last)
            self.deepspeed.backward(surrogate)
            if last:
                break
        return float(loss.detach()), (detached(audio), detached(text))

    def _encode(self, batch: Batch) -> Sides:
        """The rank's sides; one without samples encodes one of silence and keeps nothing of it."""
        full = batch if len(batch) else silence(batch)

        def call(system: System) -> Sides:
            with self.precision():
                return system.model(full.features, full.frames, full.tokens, full.token_mask, full.seeds)

        audio, text = self.deepspeed(call)
        count = len(batch)
        if count:
            return audio, text
        return tuple(tensor[:0] for tensor in audio), tuple(tensor[:0] for tensor in text)

    def _objective(self, audio: Sequence[Tensor], text: Sequence[Tensor], batch: Batch) -> Callable[[System], Tensor]:
        def call(system: System) -> Tensor:
            ids = batch_ids(batch)
            return global_loss(system.model.head, system.loss, tuple(text), tuple(audio), ids, self.group)

        return call

    def _update(self) -> tuple[float, bool]:
        """Clip and move; or leave everything as it is where the gradient is not finite."""
        if self.stage == 0:
            gradients = [p.grad for p in self.system.parameters() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(gradients))
            if not math.isfinite(norm):
                self.deepspeed.zero_grad()
                for parameter in self.system.parameters():
                    parameter.grad = None
                return norm, False
            self.deepspeed.step()
            return norm, True
        skipped = self.deepspeed.skipped_steps
        self.deepspeed.step()  # ZeRO leaves out a step whose norm is not finite
        norm = self.deepspeed.get_global_grad_norm()
        applied = self.deepspeed.skipped_steps == skipped
        return (float(norm) if norm is not None else float("nan")), applied

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Autocast to bfloat16 for encoders and heads where the recipe says so; weights stay float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.engine.dtype == "bf16"):
            yield

    def _seed(self, chunk: int) -> None:
        """Make what an encoder draws from torch's own stream a function of (seed, step, rank, chunk).

        So it is the same in a chunk's replay and in a resume.  Dropout belongs to the samples: see `dropout.py`.
        """
        base = torch.tensor([self.recipe.seed])
        for number in (self.steps_taken, self.group.rank, chunk):
            base = splitmix64(base, torch.tensor([number]))
        torch.manual_seed(int(base) & 0x7FFFFFFFFFFFFFFF)

    def _keep_whole(self, *modules: nn.Module) -> None:
        """Keep small parts whole on every rank under ZeRO-3: the loss uses them outside their own forward."""
        offload = self.deepspeed.optimizer.parameter_offload
        small: list[Any] = [parameter for module in modules for parameter in module.parameters()]
        added = [parameter for parameter in small if not parameter.ds_persist]
        for parameter in added:
            parameter.ds_persist = True
            offload.persistent_parameters.append(parameter)
        if added:
            added[0].all_gather(added)
        self._whole = small

    def _hold_whole(self) -> None:
        """Keep what is whole from being released in this step: until DeepSpeed has seen one, it releases all alike."""
        for parameter in self._whole:
            parameter.ds_active_sub_modules.add(HELD)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that move."""
        return [parameter for parameter in self.system.parameters() if parameter.requires_grad]

    def encoders(self) -> SideEncoder:
        """For evaluation: sides without gradient; every rank must call them equally often."""
        self.system.eval()

        def audio(batch: Batch) -> tuple[Tensor, ...]:
            return self._side(batch, lambda model, b: model.audio_side(b.features, b.frames, b.seeds))

        def text(tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
            tokens, mask = tokens.to(self.device), mask.to(self.device)
            with torch.no_grad(), self.precision():
                return self.deepspeed(lambda system: system.model.text_side(tokens, mask))

        return SideEncoder(self.model, self.recipe.data, audio, text)

    def _side(self, batch: Batch, call: Callable[[RetrievalModel, Batch], Sequence[Tensor]]) -> tuple[Tensor, ...]:
        full = (batch if len(batch) else silence(batch)).to(self.device)
        with torch.no_grad(), self.precision():
            side = self.deepspeed(lambda system: call(system.model, full))
        return tuple(tensor[: len(batch)] for tensor in side)

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter, whole, float32, on the CPU, and every saved buffer, by name.

        A collective call; the ranks but the first get nothing, so that a machine holds one copy.
        """
        values: dict[str, Tensor] = {}
        for name, parameter in self.system.names().items():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if self.group.rank == 0:
                    values[name] = parameter.detach().float().cpu().clone()
        if self.group.rank == 0:
            values |= {name: value.detach().cpu().clone() for name, value in self.system.state().items()}
        return values

    def optimizer_moments(self) -> dict[str, dict[str, Tensor]]:
        """Moment to parameter name to the whole moment on the CPU; collective, and on the first rank alone as well."""
        found: dict[str, dict[str, Tensor]] = {moment: {} for moment in self.moments}
        for moment, values in found.items():
            for name, parameter in self.system.names().items():
                if not parameter.requires_grad:
                    continue
                if self.stage == 0:
                    whole = self.deepspeed.optimizer.state[parameter][moment]
                else:
                    whole = safe_get_full_optimizer_state(parameter, moment)
                if self.group.rank == 0:
                    values[name] = whole.detach().cpu().clone()
        return found

    def _start_moments(self, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Build the optimizer's state before its first step, so that it can be filled by parameter name."""
        if self.stage == 0:
            optimizer, flat = (
                self.deepspeed.optimizer,
                [p for p in self.system.parameters() if p.requires_grad],
            )
        elif self.stage == 3:
            optimizer = self.deepspeed.optimizer.optimizer
            flat = self.deepspeed.optimizer.fp32_partitioned_groups_flat
        else:
            optimizer = self.deepspeed.optimizer.optimizer
            flat = self.deepspeed.optimizer.single_partition_of_fp32_groups
        for parameter in flat:
            optimizer.state[parameter] = first_state(parameter, self.moments, self.updates)
        if self.stage in (1, 2):
            self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()
        for moment in self.moments:
            for name, parameter in self.system.names().items():
                if parameter.requires_grad and name in moments.get(moment, {}):
                    self._set_moment(parameter, moment, moments[moment][name].to(self.device))

    def _set_moment(self, parameter: Any, moment: str, value: Tensor) -> None:
        if self.stage == 0:
            self.deepspeed.optimizer.state[parameter][moment].copy_(value)
        elif self.stage == 3:  # DeepSpeed's call for whole moments fails where their size does not divide by the ranks
            share = value.new_zeros(parameter.ds_tensor.numel())
            own = value.flatten()[self.group.rank * len(share) :][: len(share)]
            share[: len(own)] = own
            safe_set_local_optimizer_state(parameter, share, moment)
        else:
            safe_set_full_optimizer_state(parameter, value, moment)

    def close(self) -> None:
        """Give back what DeepSpeed holds, and torch as it was; the ranks stay joined."""
        try:
            self.deepspeed.destroy()
        finally:
            nn.functional.linear = _LINEAR  # ZeRO-3 puts its own there for good, which rounds otherwise
            FWD_MODULE_STACK.clear()  # ... and keeps every model there


def _configuration(recipe: Recipe, world: int) -> dict[str, Any]:
    return {
        # DeepSpeed checks that these multiply; the loader decides what a rank really gets.
        "train_batch_size": world,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.optimizer.clip,
        "zero_optimization": {"stage": recipe.engine.zero},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 60,
        "wall_clock_breakdown": False,
    }


def _all_or_nothing(loss: Tensor) -> Tensor:
    """The loss; where it is not finite NaN, whose gradient is NaN as well, so that the step is left out."""
    return loss if math.isfinite(float(loss.detach())) else loss * math.nan
