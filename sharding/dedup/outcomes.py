"""The outcomes of comparing two clips, and which of them is the stronger."""

from __future__ import annotations

OUTCOME_RANK = {"different": 0, "undecided": 1, "same": 2}  # of several outcomes of one pair, the highest counts
