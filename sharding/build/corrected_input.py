"""Continues a build that was refused after everything was decoded, once its input has been corrected.

Captions whose times are not in their recordings, and too little audio of a protected split, are found out then.  The
tables are read again; recordings that decoded, and are the same today, are not.
"""

from __future__ import annotations

from sharding import layout
from sharding.build.failure_limit import count_failed
from sharding.build.reopening import reopen_unchanged
from sharding.build.stages import Stages
from sharding.common.errors import InputError
from sharding.fates.protection import is_unprotected, protection
from sharding.layout import Work
from sharding.reports.facts import read_facts


def was_refused(stages: Stages) -> bool:
    """Whether a build stands where its input, as it was read, is refused."""
    if stages.out.exists(layout.MATCHES) or not stages.work.exists(Work.MARKER):
        return False
    try:
        catalogue, facts = stages.catalogue(), read_facts(stages.work)
    except InputError:  # the stages say what is wrong with it
        return False
    limit, clips = stages.max_failed, catalogue.num_rows
    if limit is not None and limit.is_exceeded(count_failed(facts), clips):
        return True
    if facts.num_rows < clips:
        return False  # the probe is not finished
    splits = protection(*stages.clips.tables(catalogue, facts), stages.settings.fates.protect)
    unprotected = not stages.allow_unprotected and any(map(is_unprotected, splits))
    return unprotected or any(stages.captions_outside(catalogue, facts))


def read_again(stages: Stages) -> None:
    """Read the input of a build again where it was refused.

    Raises:
        InputError: it cannot be read today.
    """
    if was_refused(stages):
        reopen_unchanged(stages.out, read_facts(stages.work), stages.settings.as_dict(), stages.read_sources())
