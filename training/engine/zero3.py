"""The only module that knows how DeepSpeed lays out parameters and moments under its ZeRO stages.

The rest of the engine works with whole tensors by name.  Where this module uses a field of DeepSpeed that is not
documented, a comment gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from training.config.sections import Recipe
from training.engine.distributed import Group
from training.models.heads.base import Whole

HELD = -1  # the number of a module that never ends, among the modules that DeepSpeed counts for a parameter


def configuration(recipe: Recipe, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run."""
    return {
        # DeepSpeed checks the product of these numbers; the loader decides how many samples a rank really gets.
        "train_batch_size": world,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.optimizer.clip,
        # the memory-efficient linear function would replace torch's in the whole process, and it rounds differently
        "zero_optimization": {"stage": recipe.engine.zero, "memory_efficient_linear": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 60,
        "wall_clock_breakdown": False,
    }


class Sharded:
    """The parameters and moments of a DeepSpeed engine as whole tensors by name, at any ZeRO stage.

    Args:
        engine: what ``deepspeed.initialize`` returned.
        stage: its ZeRO stage.
        group: the ranks.
        names: the parameters by name.
        moments: the names of the optimizer's moments.
    """

    def __init__(
        self, engine: Any, stage: int, group: Group, names: Mapping[str, nn.Parameter], moments: Iterable[str]
    ) -> None:
        self.engine, self.stage, self.group = engine, stage, group
        self.names, self.moment_names = dict(names), tuple(moments)
        self._whole: list[Any] = []
        if stage == 3:
            release_only_entered(engine.optimizer.parameter_offload)

    def keep_whole(self, modules: Sequence[nn.Module]) -> None:
        """Keep the parameters of small modules whole on every rank under ZeRO-3.

        Losses and scorers are used outside their own forward pass, where DeepSpeed would not gather them.
        """
        if self.stage != 3:
            return
        offload = self.engine.optimizer.parameter_offload
        small: dict[int, Any] = {id(p): p for module in modules for p in module.parameters()}
        added = [parameter for parameter in small.values() if not parameter.ds_persist]
        for parameter in added:
            parameter.ds_persist = True
            offload.persistent_parameters.append(parameter)
        if added:
            added[0].all_gather(added)
        self._whole = list(small.values())
        for module in modules:
            for part in module.modules():
                if isinstance(part, Whole):  # it hands out parameters of modules that never run by themselves
                    for parameter in part.parameters():
                        deepspeed.zero.register_external_parameter(part, parameter)

    def hold_whole(self) -> None:
        """Keep these parameters in this step: until its first step DeepSpeed would release them with all others."""
        for parameter in self._whole:
            parameter.ds_active_sub_modules.add(HELD)

    def parameters(self, trained: bool) -> dict[str, Tensor]:
        """Every parameter that is trained, or every one that is not, whole, on the CPU, by name; a collective call.

        Only the first rank gets them, so that a machine holds one copy.
        """
        values: dict[str, Tensor] = {}
        for name, parameter in self.names.items():
            if parameter.requires_grad != trained:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if self.group.rank == 0:
                    values[name] = parameter.detach().cpu().clone()
        return values

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Whole moments on the CPU, by their name and the parameter's; a collective call, with values on rank 0."""
        found: dict[str, dict[str, Tensor]] = {moment: {} for moment in self.moment_names}
        for moment, values in found.items():
            for name, parameter in self.names.items():
                if not parameter.requires_grad:
                    continue
                if self.stage == 0:
                    whole = self.engine.optimizer.state[parameter][moment]
                else:
                    whole = safe_get_full_optimizer_state(parameter, moment)
                if self.group.rank == 0:
                    values[name] = whole.detach().cpu().clone()
        return found

    def start_moments(
        self, first_state: Callable[[Tensor], dict[str, Tensor]], moments: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Build the optimizer's state before its first step, and fill in what is known by parameter name."""
        if self.stage == 0:
            optimizer, flat = self.engine.optimizer, [p for p in self.names.values() if p.requires_grad]
        elif self.stage == 3:
            optimizer = self.engine.optimizer.optimizer
            flat = self.engine.optimizer.fp32_partitioned_groups_flat
        else:
            optimizer = self.engine.optimizer.optimizer
            flat = self.engine.optimizer.single_partition_of_fp32_groups
        for parameter in flat:
            optimizer.state[parameter] = first_state(parameter)
        if self.stage in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()
        for moment in self.moment_names:
            for name, parameter in self.names.items():
                if parameter.requires_grad and name in moments.get(moment, {}):
                    self._set_moment(parameter, moment, moments[moment][name].to(parameter.device))

    def _set_moment(self, parameter: Any, moment: str, value: Tensor) -> None:
        if self.stage == 0:
            self.engine.optimizer.state[parameter][moment].copy_(value)
        elif self.stage == 3:  # DeepSpeed's call for whole moments fails where their size does not divide by the ranks
            share = value.new_zeros(parameter.ds_tensor.numel())
            own = value.flatten()[self.group.rank * len(share) :][: len(share)]
            share[: len(own)] = own
            safe_set_local_optimizer_state(parameter, share, moment)
        else:
            safe_set_full_optimizer_state(parameter, value, moment)

    def update(self) -> tuple[float, bool]:
        """Clip the gradient and update the weights, unless the gradient is not finite.

        Returns:
            the norm of the gradient before clipping, and whether the weights have moved.
        """
        if self.stage == 0:
            gradients = [p.grad for p in self.names.values() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if not bool(norm.isfinite()):
                self.engine.zero_grad()
                for parameter in self.names.values():
                    parameter.grad = None
                return float(norm), False
            self.engine.step()
            return float(norm), True
        skipped = self.engine.skipped_steps
        self.engine.step()  # ZeRO leaves out a step whose norm is not finite
        found = self.engine.get_global_grad_norm()
        applied = self.engine.skipped_steps == skipped
        return (float(found) if found is not None else float("nan")), applied

    def close(self) -> None:
        """Free what DeepSpeed holds; the ranks stay connected."""
        try:
            self.engine.destroy()
        finally:
            FWD_MODULE_STACK.clear()  # otherwise ZeRO-3 keeps every model alive after its engine has ended


def release_only_entered(offload: Any) -> None:
    """Let ZeRO-3 release in the backward pass only modules that the backward pass has entered.

    DeepSpeed enters a module at the gradient of its output, and releases it at the gradient of its input.  Where a
    loss takes what a block inside of a stack returns and nothing takes what the stack itself returns, the stack is
    released without having been entered, which DeepSpeed's assertion refuses.  Nothing of it was gathered by then.

    Args:
        offload: what has the hooks of all modules, ``DeepSpeedZeRoOffload``.
    """
    release = offload.post_sub_module_backward_function

    def release_entered(module: nn.Module) -> None:
        entered = offload.get_param_coordinator()._PartitionedParameterCoordinator__active_backward_submodules
        if module.ds_id in entered:
            release(module)

    offload.post_sub_module_backward_function = release_entered
