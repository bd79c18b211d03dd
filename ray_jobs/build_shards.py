"""The shard builder as a Ray job.

    ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/build_shards.py
        --clotho DIR --audiocaps DIR --wavcaps DIR --tacos DIR --out DIR

The options are those of ``earshot build``; the cluster's CPUs are the workers.
"""

from __future__ import annotations

import sys
from functools import partial

from ray_jobs.cluster.runner import add_ray
from sharding import cli
from sharding.common import commandline
from sharding.common.processes import run_program


def main() -> int:
    arguments = ["build", *sys.argv[1:]]
    extend = partial(add_ray, default="auto")
    return commandline.main("ray_jobs/build_shards.py", __doc__ or "", cli.COMMANDS, arguments, extend)


if __name__ == "__main__":
    run_program(main)
