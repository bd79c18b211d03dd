"""Every name below OUT, in one place."""

from __future__ import annotations

from pathlib import PurePosixPath


def manifest_name(shard: str) -> str:
    """The manifest's file of a shard, below OUT."""
    return f"manifest/{PurePosixPath(shard).stem}.parquet"


def plan_name(shard: str) -> str:
    """A shard's part of the plan, below OUT."""
    return f"plan/{PurePosixPath(shard).stem}.parquet"


def task_name(shard: str) -> str:
    """The file below OUT/.build with the rows of a shard that is to be written."""
    return f"tasks/{PurePosixPath(shard).stem}.parquet"


def record_name(shard: str) -> str:
    """The file below OUT/.build that says that a shard is finished."""
    return f"records/{PurePosixPath(shard).stem}.json"


KEPT = "facts/kept.parquet"  # below OUT/.build: facts that are not asked for again
SETTLED = "settled.parquet"  # facts of all clips as they stand once the build is finished
KNOWN = "known.parquet"  # matches between the clips of KEPT
FORMER = "former"  # below OUT/.build/packs: shards of a reopened build, as packs
NEXT = "reopened"  # below OUT/.build: what a reopening puts in place


def catalogue_name(dataset: str) -> str:
    """The catalogue's file of a dataset, below OUT."""
    return f"catalogue/{dataset}.parquet"
