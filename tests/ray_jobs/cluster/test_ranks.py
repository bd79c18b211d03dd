"""What a rank of a Ray job does with errors, and its driver with interrupts."""

from __future__ import annotations

import signal
import sys
from typing import Any

import pytest
import torch.distributed as dist

from ray_jobs.cluster.ranks import Share, _own_interrupts, rank_main
from sharding.common.errors import InputError


def fail(take_network: bool, _group: Any) -> None:
    if take_network:
        dist.destroy_process_group()  # as Ray Train does when it starts the ranks again
    raise InputError("a sample is damaged")


def test_a_rank_without_a_network_was_stopped_and_another_error_is_its_own() -> None:
    for take, kind, what in ((True, RuntimeError, "rank 0 was stopped"), (False, InputError, "a sample is damaged")):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            with pytest.raises(kind, match=what) as caught:
                rank_main({"share": Share(fail, take)})
            assert caught.value.__suppress_context__ == take
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def test_ctrl_c_is_an_interrupt_although_ray_train_exits_with_0() -> None:
    own = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _own_interrupts():
        signal.signal(signal.SIGINT, lambda number, frame: sys.exit(0))  # as Ray Train does
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is own
