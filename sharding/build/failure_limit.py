"""How many clips of a build may fail before it stops.  A clip without a file is missing, and is not counted."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError
from sharding.common.sizes import quantity


@dataclass(frozen=True)
class FailureLimit:
    """A number of clips, or a share of them.

    Attributes:
        most: the number, or the share.
        is_share: which of the two.
    """

    most: float
    is_share: bool

    @staticmethod
    def parse(text: str) -> FailureLimit:
        """``100`` is a number of clips, ``2%`` and ``0.02`` are shares; ``ValueError`` for anything else."""
        number = float(text.removesuffix("%"))
        is_share = text.endswith("%") or "." in text
        most = number / 100 if text.endswith("%") else number
        if not 0 <= most < float("inf") or (is_share and most > 1):
            raise ValueError(text)
        return FailureLimit(most, is_share)

    def is_exceeded(self, failed: int, clips: int) -> bool:
        """Whether ``failed`` of ``clips`` clips are more than this limit allows."""
        return failed > (self.most * clips if self.is_share else self.most)

    def check(self, failed: int, clips: int, place: str) -> None:
        """Raise ``InputError`` if more clips failed than this limit allows; ``place`` is the build's address."""
        if self.is_exceeded(failed, clips):
            allowed = f"{self.most:.2%}" if self.is_share else f"{self.most:g}"
            raise InputError(
                f"{failed:,} of {quantity(clips, 'clip')} cannot be read; --max-failed allows {allowed}",
                file=place,
                remedy="repair the files and run the same command again, which reads them again, or allow more",
            )


def count_failed(facts: pa.Table) -> int:
    """How many clips failed although their file was there."""
    failed = pc.and_kleene(facts["error"].is_valid(), pc.not_equal(facts["error"], "missing"))
    return int(pc.sum(failed.cast(pa.int64())).as_py() or 0)
