"""Every name below OUT, in one place.

OUT itself holds what readers need.  ``OUT/.build``, the work folder, holds what a later command needs to go on: the
settings, the facts and the sound of every clip, and, while a build is under way, what it has finished so far.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from sharding.common.storage import Storage

WORK = ".build"

# Files of a finished build.
DATASET = "dataset.json"
FATES = "fates.parquet"
MATCHES = "matches.parquet"
ORPHANS = "orphans.parquet"
OVERVIEW = "overview.json"
DIFFERENCES = "differences.parquet"  # after `append`: where a build of all datasets would have decided otherwise

# Folders of a finished build.
SHARDS, MANIFESTS, PLAN, CATALOGUE, REPORT = "shards", "manifest", "plan", "catalogue", "report"


def shard_name(shard: str) -> str:
    """A shard, by its file name; below OUT."""
    return f"{SHARDS}/{shard}"


def manifest_name(shard: str) -> str:
    """The manifest of a shard; below OUT."""
    return f"{MANIFESTS}/{PurePosixPath(shard).stem}.parquet"


def plan_name(shard: str) -> str:
    """The part of the plan that describes a shard; below OUT."""
    return f"{PLAN}/{PurePosixPath(shard).stem}.parquet"


def catalogue_name(dataset: str) -> str:
    """The catalogue of a dataset; below OUT."""
    return f"{CATALOGUE}/{dataset}.parquet"


def work_of(out: Storage) -> Storage:
    """The work folder of the build at ``out``."""
    return out.child(WORK)


class Work:
    """Names below the work folder."""

    LOCK = "lock"
    SETTINGS = "settings.json"  # of the build that is here
    MARKER = "catalogue.json"  # the catalogue is complete; which datasets it has, and remarks about them
    INPUTS = "inputs.parquet"  # when each audio file changed last, and its size, before it was read
    INTENT = "intent.json"  # file operations that were decided and may not be finished (see build.journal)
    RESHARD = "reshard.json"  # the build and the shard size that `reshard` copies
    PLAN = "plan.json"  # the plan is complete; its shards and its hash
    CONTENTS = "contents.json"  # sizes and checksums of the work folder's own files
    FINAL_FACTS = "settled.parquet"  # facts of all clips as the finished build keeps them
    KEPT_FACTS = "facts/kept.parquet"  # facts that the probe does not look for again
    KNOWN_MATCHES = "known.parquet"  # matches among the clips of KEPT_FACTS

    FACTS, FINGERPRINTS, PACKS = "facts", "fingerprints", "packs"  # of each batch, what the probe found
    STEPS = "steps"  # of a batch under way: what the probe found about the first of its clips
    TASKS, RECORDS = "tasks", "records"  # of each shard: the rows that it will hold; and that it is finished
    TRIMMED = "tasks/trimmed"  # of each batch of trimmed clips: their facts once they are cut
    MATCHING = "matching"  # what comparing has found so far; gone once the matches are there
    REOPENED = "reopened"  # files that a reopening will put in place
    ADDITION = "append"  # what `append` builds before it is merged into OUT
    FORMER_SHARDS = "former"  # below PACKS: shards of a reopened build, read as packs


def facts_name(batch: str) -> str:
    """The facts of a batch; below the work folder.  They are written last: where they are, the batch is finished."""
    return f"{Work.FACTS}/{batch}.parquet"


def fingerprints_name(batch: str) -> str:
    """The fingerprints of a batch; below the work folder."""
    return f"{Work.FINGERPRINTS}/{batch}.parquet"


def steps_name(batch: str) -> str:
    """The folder of the steps of a batch that is under way; below the work folder."""
    return f"{Work.STEPS}/{batch}"


def pack_name(pack: str) -> str:
    """A pack (encoded sound, window after window), by its file name; below the work folder."""
    return f"{Work.PACKS}/{pack}"


def finished_pack_name(pack: str) -> str:
    """Where a finished build holds the sound of a pack that its facts name; below OUT.

    Facts name shards as they will be called when the build is reopened, which makes them packs.
    """
    shard = pack.removeprefix(f"{Work.FORMER_SHARDS}/")
    return in_work(pack_name(pack)) if shard == pack else shard_name(shard)


def trimmed_name(batch: str) -> str:
    """The facts of a batch of trimmed clips; below the work folder.  Where they are, the clips are cut."""
    return f"{Work.TRIMMED}/{batch}.parquet"


def task_name(shard: str) -> str:
    """The rows of a shard that is to be written; below the work folder."""
    return f"{Work.TASKS}/{PurePosixPath(shard).stem}.parquet"


def record_name(shard: str) -> str:
    """The record that a shard is finished; below the work folder."""
    return f"{Work.RECORDS}/{PurePosixPath(shard).stem}.json"


def is_work(name: str) -> bool:
    """Whether a name below OUT is one of the work folder."""
    return name.startswith(f"{WORK}/")


def in_work(name: str) -> str:
    """The path below OUT of a path below the work folder."""
    return f"{WORK}/{name}"
