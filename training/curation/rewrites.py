"""Captions in other words, as a table beside a build: what it holds, what is refused, and how it is joined.

Each row is one alternative of one caption of a clip, with the model, the prompt and the time that it comes from; arXiv
2412.20914 trains on captions that a language model rewrote.  Joined to a manifest, alternatives
are captions of kind ``rewritten``, which an item of a recipe's mixture reads where it asks for this kind, and have
``annotation`` as their source, so that evaluation does not read them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from training.curation.annotations import REASONS as OF_ANY_TEXT
from training.curation.annotations import caption, problem, with_captions

REWRITES = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("of", pa.string(), nullable=False),  # the caption as it was published
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("written", pa.string(), nullable=False),  # when, in UTC
    ]
)
KIND = "rewritten"
PROMPT = "Write this description of a sound in other words, as one short sentence of the same meaning: {}"
LEAST_KEPT = 1 / 3  # of the words that carry a caption's meaning
LEAST_WORDS = 12  # that any alternative may have, however short its caption is

# Why an alternative is not kept.
REASONS = {
    **{name: OF_ANY_TEXT[name] for name in ("empty", "refusal", "repetition")},
    "too_long": f"it has more than twice as many words as its caption, and more than {LEAST_WORDS}",
    "equal": "it is the caption itself",
    "same": "it is another alternative of the clip, or another of its captions",
    "lost_words": "it has less than a third of the words that carry the caption's meaning",
}
_WORD = re.compile(r"[^\W\d_]+")
_LIST_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+")
_COMMON = """the and are with while then into onto from that this there their them they its for off out over some
several being was were has have had can but very other another which who what when where sound sounds noise heard"""
_SAYS_LITTLE = frozenset(_COMMON.split())


def answer(text: str) -> str:
    """The alternative in a model's answer: its first line that introduces nothing, without list mark and quotes."""
    for line in text.splitlines():
        found = " ".join(_LIST_MARK.sub("", line).split())
        if found and not found.endswith(":"):
            return found.strip("\"'`\u201c\u201d\u2018\u2019 ")
    return ""


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and numbers."""
    return [word.lower() for word in _WORD.findall(text)]


def kept_share(original: str, text: str) -> float:
    """The share of the words that carry a caption's meaning which another text has too, in whatever inflection.

    Two words are taken for the same where one begins as the other does, but for their last three letters.
    """
    wanted = {word for word in words(original) if len(word) > 2 and word not in _SAYS_LITTLE}
    given = words(text)
    if not wanted:
        return 1.0
    return sum(any(_alike(word, other) for other in given) for word in wanted) / len(wanted)


def _alike(one: str, other: str) -> bool:
    stem = one[: max(3, len(one) - 3)]
    return other.startswith(stem)


def sifted(original: str, alternatives: Sequence[str], known: set[tuple[str, ...]]) -> tuple[list[str], Counter[str]]:
    """The alternatives of a caption that are kept, and how often each reason of `REASONS` occurred among the others.

    Args:
        original: the caption.
        alternatives: the model's answers, as they are.
        known: the words of every caption and alternative that the clip has; those that are kept are added.
    """
    kept: list[str] = []
    reasons: Counter[str] = Counter()
    own = words(original)
    for text in map(answer, alternatives):
        spelled = words(text)
        reason = problem(text, max(LEAST_WORDS, 2 * len(own)))
        if reason is None and spelled == own:
            reason = "equal"
        elif reason is None and tuple(spelled) in known:
            reason = "same"
        elif reason is None and kept_share(original, text) < LEAST_KEPT:
            reason = "lost_words"
        if reason is None:
            kept.append(text)
            known.add(tuple(spelled))
        else:
            reasons[reason] += 1
    return kept, reasons


def joined(manifest: pa.Table, alternatives: pa.Table) -> pa.Table:
    """A manifest whose clips also have their alternatives, of kind `KIND`.

    Args:
        manifest: MANIFEST rows.
        alternatives: REWRITES rows; clips that are not in the manifest are passed over.
    """
    extra: dict[str, list[dict[str, object]]] = {}
    for clip, text in zip(alternatives["clip_id"].to_pylist(), alternatives["text"].to_pylist(), strict=True):
        extra.setdefault(clip, []).append(caption(text, KIND))
    return with_captions(manifest, extra)
