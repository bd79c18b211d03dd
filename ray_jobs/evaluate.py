"""Evaluation as a Ray job: the options of ``earshot evaluate``, on a node of the cluster.

ray job submit --address http://HEAD:8265 --working-dir . -- python ray_jobs/evaluate.py CHECKPOINT
    --shards OUT --split clotho/evaluation --json
"""

from __future__ import annotations

import sys

from ray_jobs import command
from sharding.common.processes import run_program


def main() -> int:
    return command.main(["evaluate", *sys.argv[1:]], "ray_jobs/evaluate.py", __doc__ or "")


if __name__ == "__main__":
    run_program(main)
