"""Cross-attention as late interaction: one vector for each word, one for each segment of a clip.

The score of Calvet and Toledano 2025, eqs. 1-7, is the mean over words i of ``cos(T_i, H_i)``, where H_i mixes the
segments of a clip by attention.  Late interaction (ColBERT, arXiv 2004.12832) has the mean over words of the largest
``T_i . D_m`` over segments m instead.  With D_m the output that attention gives where a clip has segment m alone, both
are equal for every clip of one segment.  For longer clips late interaction takes the best segment of each word instead
of a mixture, so its scores are near those of the model and not equal to them.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.engine.distributed import accumulation_dtype
from training.models.encoders import EncodedAudio, EncodedText
from training.models.heads.base import Head
from training.models.heads.token_attention import TokenAttention


def has_late_interaction(head: Head) -> bool:
    """Whether a head's scores are those of late interaction for clips of one segment."""
    return isinstance(head, TokenAttention) and not head.uses_patches


def word_vectors(head: TokenAttention, text: EncodedText) -> tuple[Tensor, Tensor]:
    """``T_i / |T_i| [b, N, d]``, or of W_q T_i where the head compares this; and the mask ``[b, N]``."""
    tokens, mask = head.queries(text)
    compared = tokens if head.compares_text else head.query(tokens)
    return F.normalize(compared.to(accumulation_dtype(compared.dtype)), dim=-1), mask


def sound_vectors(head: TokenAttention, audio: EncodedAudio) -> tuple[Tensor, Tensor]:
    """``H / |H| [b, M, d]`` of every segment alone, and the mask ``[b, M]``."""
    vectors, mask = head.vectors(audio)
    values = head.value_in(head.value(vectors))
    matrix, offset = head.output()
    return F.normalize(values.to(matrix.dtype) @ matrix.t() + offset, dim=-1), mask
