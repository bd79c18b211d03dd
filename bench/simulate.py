"""Simulates builds and training that are too large to run here, and says where the design breaks first.

    python -m bench.simulate [--check] [--quick]

A build has a number of clips, hours of sound and nodes; training has GPUs and a global batch.  All is arithmetic on
the constants of ``ray_jobs/costs.py``, which `python -m ray_jobs plan` takes too; hardware that no bench knows (GPUs,
links, memory) are options.  ``--check`` does what this machine can do, from 1,000 to 100,000 clips and on 1, 2 and 4
ranks, and prints how far the simulation is off (``bench/simulate_check.py``).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ray_jobs.costs import (
    DECODE_S,
    ORDER_BYTES,
    ORDER_S,
    PROCESS_BYTES,
    RANKS_KEEP,
    SHARD_BYTES,
    Nodes,
    Span,
    build_cost,
)
from ray_jobs.plan import show_sizes
from sharding.common.sizes import show_size

FLOAT = 4  # bytes of a number
_IDS = 4 * 8  # bytes of the ids of a clip that travel with its vector
_STATISTICS = 2 * 2 * FLOAT  # bytes of a column's statistics: two numbers, each summed over the ranks in two rounds


class Corpus(NamedTuple):
    """The size of a corpus: clips and hours."""

    name: str
    clips: int
    hours: float


class Model(NamedTuple):
    """The figures of a recipe with which the simulation computes.

    Attributes:
        parameters: trained ones, kept as float32.
        dim: numbers in the vector of a clip that is gathered.
        text_operations, segment_operations: floating-point operations of a training step for a caption, and for each
            segment of 10 s.
        seconds: the most sound of a clip that is encoded.
    """

    parameters: int
    dim: int
    text_operations: float
    segment_operations: float
    seconds: float


class Hardware(NamedTuple):
    """GPUs and the nodes that hold them.

    Attributes:
        operations_s: floating-point operations a second of one GPU, sustained.
        link: bytes a second that reach one GPU from the others.
        gpus, cores, memory: what a node has.
    """

    operations_s: float
    link: float
    gpus: int
    cores: int
    memory: float


class Step(NamedTuple):
    """A simulated training step, of one GPU unless said otherwise; times in seconds, sizes in bytes.

    Attributes:
        batch: clips of the global batch.
        clips: how many of these each GPU has that has any.
        compute_s: encoders and loss.
        gradient_bytes: received for gradients and weights.
        vector_bytes: received for the loss: vectors, their gradients, ids and statistics of the gathered side.
        link_s: both of these at the link's speed.
        step_s: lower end: traffic hides behind the work; upper end: it does not, and many GPUs are as slow as measured.
        state_bytes: weights, gradients, moments and the optimizer's copy of the weights.
        loss_bytes: the gathered side and its gradient.
        read_bytes_s: sound that one node reads a second.
        cores: the most cores of a GPU's loader, which only decodes.
        order_bytes: order and manifest of the ranks of one node.
    """

    gpus: int
    batch: int
    clips: int
    compute_s: float
    gradient_bytes: float
    vector_bytes: float
    link_s: float
    step_s: Span
    state_bytes: float
    loss_bytes: float
    read_bytes_s: float
    cores: float
    order_bytes: float
    steps_per_epoch: float


WAVCAPS = Corpus("WavCaps", 403_050, 7563)
LARGE = Corpus("100 million clips of 10 s", 100_000_000, 100_000_000 * 10 / 3600)
# PaSST (85.3 million) and RoBERTa-large (354.3 million) with projections, counted from the models.  Six operations for
# each parameter and token: 284 patches of a segment after patchout, 32 tokens of text.
DUAL_ENCODER = Model(441_000_000, 1024, 6 * 354.3e6 * 32, 6 * 85.3e6 * 284, 30.0)
_SEGMENT_S = 10.0
GPUS = (8, 16, 64, 128, 256, 1024)


def received(model: Model, ranks: int, batch: int) -> tuple[float, float]:
    """Bytes that reach one rank in a step: for gradients and weights, and for the loss.

    A ring of n ranks brings (n - 1) / n of a tensor to each in one round.  Under ZeRO 1, DeepSpeed adds gradients up
    on every rank (two rounds) and gathers the changed weights (one); ``simulate_check`` counted the same.  Vectors are
    gathered and their gradients scattered, in one round each.
    """
    share = (ranks - 1) / ranks
    vectors = batch * (2 * FLOAT * model.dim + _IDS + _STATISTICS)
    return 3 * FLOAT * model.parameters * share, vectors * share


def state_bytes(model: Model, ranks: int) -> float:
    """Bytes of a rank: all weights and gradients, and its share of Adam's two moments and copy of the weights."""
    return FLOAT * model.parameters * (2 + 3 / ranks)


def simulate_step(model: Model, hardware: Hardware, gpus: int, batch: int, corpus: Corpus) -> Step:
    """A step on ``gpus`` with clips of the corpus's mean length, or the longest that is encoded."""
    clips = -(-batch // gpus)
    seconds = min(model.seconds, corpus.hours * 3600 / corpus.clips)
    operations = model.text_operations + math.ceil(seconds / _SEGMENT_S) * model.segment_operations
    loss = 8 * model.dim * batch * clips  # operations: every pair is scored twice, and has a gradient in both
    compute = (clips * operations + loss) / hardware.operations_s
    gradients, vectors = received(model, gpus, batch)
    link = (gradients + vectors) / hardware.link
    step = Span(max(compute, link), compute / RANKS_KEEP.low + link)
    on_node = min(gpus, hardware.gpus)
    return Step(
        gpus=gpus,
        batch=batch,
        clips=clips,
        compute_s=compute,
        gradient_bytes=gradients,
        vector_bytes=vectors,
        link_s=link,
        step_s=step,
        state_bytes=state_bytes(model, gpus),
        loss_bytes=2 * FLOAT * model.dim * batch,
        read_bytes_s=min(on_node * clips, batch) * seconds * SHARD_BYTES.high / step.low,
        cores=clips * seconds * DECODE_S.high / step.low,
        order_bytes=on_node * ORDER_BYTES * corpus.clips,
        steps_per_epoch=corpus.clips / batch,
    )


class Limit(NamedTuple):
    """Something that ends growth: what it is, whether a step has passed it, and what to do then."""

    what: str
    passed: Callable[[Step, Hardware], bool]
    then: str


LIMITS = (
    Limit("GPUs have no clip", lambda step, _: step.batch < step.gpus, "a larger batch"),
    Limit(
        "traffic takes longer than work",
        lambda step, _: step.link_s > step.compute_s,
        "more clips on each GPU, faster links, or frozen encoders (optimizer.freeze)",
    ),
    Limit("an epoch has fewer than 10 steps", lambda step, _: step.steps_per_epoch < 10, "a larger corpus"),
    Limit(
        "loaders want more cores than the node has",
        lambda step, hardware: step.cores * hardware.gpus > hardware.cores,
        "data.spectrogram: device, so that loaders only decode; more cores for each GPU",
    ),
    Limit(
        "orders take more than half of the node's memory",
        lambda step, hardware: step.order_bytes > hardware.memory / 2,
        "fewer ranks on a node; ranks that share their tables are not built",
    ),
)


def breaks(steps: list[Step], hardware: Hardware) -> Iterator[tuple[int, Limit]]:
    """The smallest number of GPUs at which each limit is passed, in order."""
    found = [(next((each.gpus for each in steps if limit.passed(each, hardware)), 0), limit) for limit in LIMITS]
    yield from sorted(((gpus, limit) for gpus, limit in found if gpus), key=lambda each: each[0])


def show_builds(corpora: tuple[Corpus, ...], memory: float) -> dict[str, float]:
    """Print what builds take on 1, 32 and 1,024 nodes of 16 cores; the clips that fit into the memory of a node."""
    print(
        f"{'build':28}{'nodes':>6}{'hours':>16}{'on one core':>12}{'shards':>20}   memory of lists, compares, decides"
    )
    for corpus in corpora:
        for number in (1, 32, 1024):
            cost = build_cost(corpus.clips, corpus.hours * 3600, Nodes("host", number, 16, 0))
            print(
                f"{corpus.name:28}{number:6}{_span(cost['hours']):>16}{cost['hours_on_one_core']:12.2g} "
                f"{show_sizes(cost['shard_bytes']):>19}   "
                + ", ".join(show_size(each) for each in cost["memory_bytes"].values())
            )
    print("\nwhat one process must hold, where it fills the memory of a node:")
    most = {}
    million = build_cost(10**6, 10.0 * 10**6, Nodes("host", 1, 1, 0))["memory_bytes"]
    for stage, size in sorted(million.items(), key=lambda each: -each[1]):
        most[f"million clips where one process {stage}"] = (memory - PROCESS_BYTES) / (size - PROCESS_BYTES)
        print(f"  {stage:20} {(memory - PROCESS_BYTES) / (size - PROCESS_BYTES):8.1f} million clips of 10 s")
    return most


def show_training(model: Model, hardware: Hardware, corpus: Corpus) -> dict[str, float]:
    """Print steps on more and more GPUs, with the published batch and with one that grows; where limits are passed."""
    result = {}
    for name, batch_of in (("128 clips in all", lambda _: 128), ("128 clips on each GPU", lambda gpus: 128 * gpus)):
        steps = [simulate_step(model, hardware, gpus, batch_of(gpus), corpus) for gpus in GPUS]
        print(f"\ntraining, {name}, {corpus.name}")
        print(
            f"{'GPUs':>6}{'clips each':>11}{'work s':>9}{'link s':>9}{'step s':>16}{'weights':>9}{'vectors':>9}"
            f"{'state':>9}{'loss':>9}{'a node reads':>13}{'cores a GPU':>12}{'orders':>9}{'steps/epoch':>12}"
        )
        for step in steps:
            print(
                f"{step.gpus:6}{step.clips:11}{step.compute_s:9.3f}{step.link_s:9.3f}{_span(step.step_s):>16}"
                f"{show_size(step.gradient_bytes):>9}{show_size(step.vector_bytes):>9}{show_size(step.state_bytes):>9}"
                f"{show_size(step.loss_bytes):>9}{show_size(step.read_bytes_s) + '/s':>13}{step.cores:12.2g}"
                f"{show_size(step.order_bytes):>9}{step.steps_per_epoch:12,.0f}"
            )
        for gpus, limit in breaks(steps, hardware):
            print(f"  from {gpus} GPUs: {limit.what}; then: {limit.then}")
            result[f"{name}, {corpus.name}: {limit.what}"] = float(gpus)
    print(f"  each start: {_span(ORDER_S.times(corpus.clips))} s until the order is known")
    return result


def _span(span: Span) -> str:
    return f"{span.low:.2g} to {span.high:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="with --check: the smallest of everything")
    parser.add_argument("--check", action="store_true", help="compare with what this machine can do")
    parser.add_argument("--tflops", type=float, default=200.0, help="of a GPU, sustained (200, an assumption)")
    parser.add_argument("--link", type=float, default=50.0, help="GB a second that reach a GPU (50, an assumption)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of a node (8)")
    parser.add_argument("--cores", type=int, default=96, help="cores of a node of GPUs (96)")
    parser.add_argument("--memory", type=float, default=64.0, help="GB of a node that builds (64)")
    parser.add_argument("--gpu-memory", type=float, default=1000.0, help="GB of the memory of a node of GPUs (1,000)")
    args = parser.parse_args()
    hardware = Hardware(1e12 * args.tflops, 1e9 * args.link, args.gpus, args.cores, 1e9 * args.gpu_memory)
    result = show_builds((WAVCAPS, LARGE), 1e9 * args.memory)
    for corpus in (WAVCAPS, LARGE):
        result |= show_training(DUAL_ENCODER, hardware, corpus)
    if args.check:
        from bench.simulate_check import check

        print()
        result |= check(args.quick)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
