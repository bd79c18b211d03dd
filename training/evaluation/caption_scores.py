"""Scores of written captions against those of people, by aac-metrics (the measures of COCO captions).

BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004), CIDEr-D (Vedantam et al. 2015), METEOR (Denkowski and Lavie 2014) and
SPICE (Anderson et al. 2016).  The last two are Java programs, which ``aac-metrics-download`` fetches; where they are
absent, they are named as skipped.  COCO's tokenizer is such a program as well, so texts are compared in lower case
without punctuation here, split at spaces.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sharding.common.errors import InputError

MEASURES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "meteor", "spice")
_PLAIN = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class CaptionScores:
    """The scores that were measured, and those that were skipped.

    Attributes:
        figures: by the name of the measure; shares from 0 to 1, CIDEr-D from 0 to 10.
        skipped: measures that could not be computed here, and why.
    """

    figures: dict[str, float]
    skipped: dict[str, str]


def score_captions(written: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Compare the caption of each clip with the captions that people wrote for it.

    Args:
        written: one caption for each clip.
        references: the captions of each clip, at least one.

    Raises:
        InputError: aac-metrics is not installed.
    """
    try:
        from aac_metrics import functional
    except ImportError as error:
        raise InputError("scores of captions need aac-metrics", remedy="pip install earshot[captions]") from error
    candidates = [_plain(text) for text in written]
    wanted = [[_plain(text) for text in texts] for texts in references]
    figures, skipped = {}, {}
    for name in MEASURES:
        try:
            found: Any = getattr(functional, name)(candidates, wanted)
        except (OSError, RuntimeError, ValueError) as error:  # no Java, no program, or too few clips
            skipped[name] = str(error).strip().splitlines()[0]
        else:
            figures[name] = float(found[0][name])
    if "spice" in figures and "cider_d" in figures:
        figures["spider"] = (figures["spice"] + figures["cider_d"]) / 2  # Liu et al. 2017
    return CaptionScores(figures, skipped)


def _plain(text: str) -> str:
    return " ".join(text.lower().translate(_PLAIN).split())
