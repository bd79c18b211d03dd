"""Does what `bench.simulate` simulates, as far as this machine can, and compares.

Times are of the processor, which depend little on the machine's other users.  Builds: deciding and planning of 1,000 to
100,000 synthesised clips, joining of simulated fingerprints, and whole builds of recordings of EARSHOT_DATA.  Training:
steps on 1, 2 and 4 ranks.  Each group of ranks has a network of its own where this is permitted, whose counters then
say what crossed it; no one else's traffic is in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.simulate import FLOAT, Model, received, state_bytes
from ray_jobs.costs import JOIN_S, RANKS_KEEP, Span, building_bytes, planning_s

BATCH = 16
_OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


class Compared(NamedTuple):
    """What was simulated and what was measured, in the same unit."""

    what: str
    simulated: Span
    measured: float

    @property
    def factor(self) -> float:
        """The measured value over the nearest end of the span; 1 inside it."""
        if self.simulated.low <= self.measured <= self.simulated.high:
            return 1.0
        return self.measured / (self.simulated.high if self.measured > self.simulated.high else self.simulated.low)


def check(quick: bool) -> dict[str, float]:
    """Print every comparison; the factors by which the simulation is off."""
    found: dict[str, float] = {}
    print(f"{'simulated and measured here':52}{'simulated':>22}{'measured':>11}{'off by':>8}", flush=True)
    for group in (deciding, comparing, building, training):
        for each in group(quick):
            low, high = each.simulated
            span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            print(f"{each.what:52}{span:>22}{each.measured:11.3g}{each.factor:8.2f}", flush=True)
            found[f"off by: {each.what}"] = each.factor
    return found


def deciding(quick: bool) -> list[Compared]:
    """Processor seconds and memory of fates and plans."""
    found = []
    for clips in (1000, 10_000) if quick else (1000, 10_000, 100_000):
        row = _apart("bench.planning", clips)
        seconds = sum(row[name] for name in ("batches", "fates", "plan", "overview"))
        wanted = planning_s(clips)
        found.append(Compared(f"decide and plan {clips:,} clips: s", Span(wanted, wanted), seconds))
        size = building_bytes(clips, 0)["decides and plans"] / 1e6
        found.append(Compared("the same: MB", Span(size, size), row["GiB"] * 2**30 / 1e6))
    return found


def comparing(quick: bool) -> list[Compared]:
    """Processor seconds and memory of joining fingerprints, mean length as in WavCaps."""
    found = []
    for clips in (1000,) if quick else (1000, 8000):
        row = _apart("bench.join", clips, 1, None)
        found.append(Compared(f"compare {row['hours']:,.0f} hours: s", JOIN_S.times(row["hours"]), row["cpu_seconds"]))
        size = building_bytes(0, row["hours"])["compares them"] / 1e6
        found.append(Compared("the same: MB", Span(size, size), row["GiB"] * 2**30 / 1e6))
    return found


def building(quick: bool) -> list[Compared]:
    """Processor seconds and bytes of whole builds of real recordings."""
    data = Path(os.environ.get("EARSHOT_DATA", "")) / "audio"
    if not (data / "clips.csv").is_file():
        print("whole builds: skipped, EARSHOT_DATA has no recordings")
        return []
    from bench.plan import build_recordings, recordings

    found = []
    for clips in (60,) if quick else (250, 1000):
        built = build_recordings(data, recordings(data)[:clips])
        found.append(Compared(f"build {clips:,} recordings: s", built.planned["hours"].times(3600), built.processor_s))
        wanted = built.planned["shard_bytes"].times(1e-6)
        found.append(Compared("the same: MB of shards", wanted, float(built.sizes.sum()) / 1e6))
    return found


def training(quick: bool) -> list[Compared]:
    """Steps on several ranks: what reaches a rank, what a rank holds, and the speed that is left."""
    rows = {count: on_ranks(count, 3 if quick else 10) for count in ((1, 2) if quick else (1, 2, 4))}
    model = Model(int(rows[1]["parameters"]), int(rows[1]["dim"]), 0, 0, 0)
    found = []
    for count, row in rows.items():
        state = (state_bytes(model, count) - 2 * FLOAT * model.parameters) / 1e6
        found.append(Compared(f"{count} ranks: MB of the optimizer's state", Span(state, state), row["state"] / 1e6))
        if count == 1:
            continue
        gradients, vectors = received(model, count, BATCH)
        found.append(
            Compared(f"{count} ranks: kB received for the loss", Span(vectors, vectors).times(1e-3), row["loss"] / 1e3)
        )
        if row["network"]:
            whole = Span(gradients + vectors, gradients + vectors).times(1e-6)
            found.append(Compared(f"{count} ranks: MB received, all together", whole, row["network"] / 1e6))
        kept = rows[1]["processor_s"] / row["processor_s"]  # all ranks share the same cores
        found.append(Compared(f"{count} ranks: of the speed of one is left", RANKS_KEEP, kept))
    return found


def on_ranks(count: int, rounds: int) -> dict[str, float]:
    """Figures of a step (mean or median of ``rounds``) on so many ranks of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command += [f"--nproc_per_node={count}", "-m", "bench.simulate_check", "--rounds", str(rounds)]
    alone = subprocess.run([*_OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        [*(_OWN_NETWORK if alone else ()), *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found if alone else found | {"network": 0.0}


def _measure_rank(rounds: int) -> None:
    """Runs on each rank: the first one prints what a step took and moved."""
    from bench.step import engine_of, make_batch, recipe_of, seconds
    from training.engine.launch import ranks

    with ranks() as group:
        whole = make_batch(BATCH)
        share = slice(BATCH * group.rank // group.size, BATCH * (group.rank + 1) // group.size)
        engine, batch = engine_of(recipe_of(), group), whole.take(share)
        for _ in range(2):
            engine.step(batch)
        group.barrier()
        begun, crossed = group.bytes_received, _crossed()
        [(_, processor_s)] = seconds([lambda: engine.step(batch).loss], rounds, warm=0)
        loss, crossed = group.bytes_received - begun, _crossed() - crossed
        of_all = float(group.sum(torch.tensor(processor_s, dtype=torch.float64)))
        optimizer = engine.deepspeed.optimizer.optimizer
        held = [tensor for moments in optimizer.state.values() for tensor in moments.values()]
        held += [tensor for part in optimizer.param_groups for tensor in part["params"]]
        if group.rank == 0:
            parameters = sum(parameter.numel() for parameter in engine.trained())
            figures = {
                "processor_s": of_all,
                "loss": loss / rounds,
                "network": crossed / rounds / group.size,
                "state": sum(each.numel() * each.element_size() for each in held if isinstance(each, torch.Tensor)),
                "parameters": parameters,
                "dim": recipe_of().head.dim,
            }
            print(json.dumps(figures))


def _crossed() -> int:
    """Bytes that crossed the loopback of this network since it began."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0


def _apart(module: str, *arguments: Any) -> dict[str, float]:
    """``measure`` of a bench in a process of its own, so that its peak of memory is its own."""
    program = f"import json; from {module} import measure; print(json.dumps(measure(*{list(arguments)!r})))"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__" and sys.argv[1:2] == ["--rounds"]:  # one of the ranks; all else is `bench.simulate --check`
    _measure_rank(int(sys.argv[2]))
