"""The shard builder as a Ray job.

    ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/build_shards.py
        --clotho DIR --audiocaps DIR --wavcaps DIR --tacos DIR --out DIR

The same options as ``python -m sharding build``; the cluster's CPUs are the workers.
"""

from __future__ import annotations

import sys

from sharding.common import commandline
from sharding.common.processes import leave


def main() -> int:
    arguments = ["build", *sys.argv[1:]]
    if not any(word == "--ray" or word.startswith("--ray=") for word in arguments):
        arguments.append("--ray=auto")
    verbs = {"build": ("sharding.commands.build", "build deduplicated shards over a Ray cluster")}
    return commandline.main("ray_jobs/build_shards.py", __doc__ or "", verbs, arguments)


if __name__ == "__main__":
    leave(main())
