"""Random numbers that belong to a sample: a counter-based generator on int64 tensors.

A generator of torch has one state for each process, so a batch that is split over ranks in another way would get
other numbers.  A hash of (seed, counter) has no state: every split, device and order gives the same numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NOISE_SEED = 0x4E4F4953  # purpose of a hash: noise on features


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical shift; torch's ``>>`` on int64 repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(seeds: Tensor, counter: Tensor) -> Tensor:
    """The output of the generator SplitMix64 (Steele, Lea and Flood 2014) ``counter`` steps after ``seeds``.

    Int64 in and out, broadcast against each other; the result is uniform over 64 bits.
    """
    x = seeds + (counter + 1) * _GOLDEN
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def normal(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """For every seed ``[n]`` numbers of the standard normal distribution, ``[n, *shape]`` float32.

    The same seed gives the same numbers on any device up to rounding (Box and Muller 1958).
    """
    counter = torch.arange(math.prod(shape), device=seeds.device)
    bits = splitmix64(seeds[:, None], counter[None, :])
    # The upper and the lower half of 64 bits are two independent numbers, in (0, 1] and in [0, 1).
    first, second = (_shift_right(bits, 32) + 1).double() / 2**32, (bits & 0xFFFFFFFF).double() / 2**32
    numbers = torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second)
    return numbers.float().unflatten(1, shape)


def noisy(features: Tensor, frames: Tensor, seeds: Tensor, sigma: float) -> Tensor:
    """Add noise to clips, independent of batch and device up to rounding.

    ``features [b, S, F, T]`` with Gaussian noise where ``frames [b, S]`` hold sound, drawn from ``seeds [b]``.
    """
    numbers = torch.arange(features.shape[1], device=seeds.device)
    of_segments = splitmix64(seeds[:, None] ^ NOISE_SEED, numbers[None])
    heard = torch.arange(features.shape[-1], device=frames.device) < frames[..., None]
    found = features.clone()
    for clip, own in enumerate(of_segments):  # one after the other: 64 bits a number would be much for a whole batch
        found[clip] += sigma * normal(own, tuple(features.shape[2:])).to(features) * heard[clip, :, None]
    return found


def subset(seeds: Tensor, size: int, keep: int) -> Tensor:
    """For every seed ``[n]``, ``keep`` distinct indices below ``size``, ascending: ``[n, keep]`` int64."""
    counter = torch.arange(size, device=seeds.device)
    keys = splitmix64(seeds[:, None], counter[None, :])
    return keys.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values
