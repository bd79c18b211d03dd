"""Captions of several lengths as a table beside a build: what it holds, what is refused, and how it is joined.

A clip has a long and a short caption and tags, as in AuroLA (arXiv 2602.18010).  Joined to a manifest, long and short
captions are of kind ``machine`` and tags of kind ``label``.  All have ``annotation`` as their source, so evaluation,
which reads what was written for a clip, does not read them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import located

ANNOTATIONS = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("long", pa.string()),
        pa.field("short", pa.string()),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
    ]
)
SOURCE = "annotation"
MOST_WORDS = {"long": 120, "short": 30}
MOST_TAGS, MOST_WORDS_OF_TAG = 20, 6
_REFUSAL = re.compile(r"\b(i can(no|')t|i am unable|i'm sorry|as an ai|language model|no audio)\b", re.IGNORECASE)


class Annotation(NamedTuple):
    """The annotation of a clip; a caption is None if there is none."""

    clip_id: str
    long: str | None
    short: str | None
    tags: tuple[str, ...]


# Why a caption or a tag is not kept.
REASONS = {
    "empty": "it has no letters",
    "too_long": "it has more words than a caption of its kind or a tag may have",
    "refusal": "the annotator says that it cannot answer",
    "repetition": "it says the same words over and over",
    "too_many_tags": "the clip has more tags than are kept",
    "same_tag": "the clip has the tag already",
}


def problem(text: str, most_words: int) -> str | None:
    """Why a caption or a tag is not kept, a key of `REASONS`; None: it is kept."""
    words = text.lower().split()
    if not any(letter.isalpha() for letter in text):
        return "empty"
    if _REFUSAL.search(text):
        return "refusal"
    if len(words) > most_words:
        return "too_long"
    if len(words) >= 9 and len({tuple(words[n : n + 3]) for n in range(len(words) - 2)}) < 0.6 * (len(words) - 2):
        return "repetition"
    return None


def filtered(annotation: Annotation) -> tuple[Annotation, Counter[str]]:
    """The annotation without what is not worth keeping, and how often each reason of `REASONS` occurred."""
    reasons: Counter[str] = Counter()
    kept: dict[str, str | None] = {}
    for kind, most in MOST_WORDS.items():
        text = " ".join((getattr(annotation, kind) or "").split())
        reason = problem(text, most) if getattr(annotation, kind) is not None else "absent"
        kept[kind] = None if reason else text
        if reason and reason != "absent":
            reasons[reason] += 1
    tags: list[str] = []
    for tag in (" ".join(each.lower().split()) for each in annotation.tags):
        reason = problem(tag, MOST_WORDS_OF_TAG) or ("same_tag" if tag in tags else None)
        if reason is None and len(tags) == MOST_TAGS:
            reason = "too_many_tags"
        if reason is None:
            tags.append(tag)
        else:
            reasons[reason] += 1
    return Annotation(annotation.clip_id, kept["long"], kept["short"], tuple(tags)), reasons


def to_table(annotations: Iterable[Annotation]) -> pa.Table:
    """ANNOTATIONS rows."""
    return pa.Table.from_pylist([each._asdict() for each in annotations], schema=ANNOTATIONS)


TABLE = "annotations.parquet"  # below the folder that `annotate` writes


def read_annotations(url: str) -> pa.Table:
    """ANNOTATIONS of a file, local or s3://.

    Raises:
        InputError: it is missing, no such table, or names a clip twice.
    """
    return annotations_of(read_beside(url), url)


def read_beside(url: str) -> pa.Table:
    """A table that lies beside a build, local or s3://; ``InputError`` if there is none, or a folder."""
    storage, name = located(url)
    if storage.exists(name):
        return storage.read_table(name)
    if storage.list(name):
        remedy = f"name the table in it, such as {url.rstrip('/')}/{TABLE}, which `annotate` writes"
        raise InputError("this is a folder, and no table of annotations", file=url, remedy=remedy)
    raise InputError("there is no such table", file=url, remedy=f"name the {TABLE} that `annotate` wrote")


def annotations_of(table: pa.Table, url: str) -> pa.Table:
    """Like `read_annotations`, for a table that was already read from the file."""
    table = checked(table, ANNOTATIONS, url)
    clips = table["clip_id"].to_pylist()
    if len(set(clips)) < len(clips):
        raise InputError(
            "a clip has two rows in the table of annotations", file=url, value=Counter(clips).most_common(1)[0][0]
        )
    return table


def checked(table: pa.Table, schema: pa.Schema, url: str) -> pa.Table:
    """A table with the columns of a schema; ``InputError`` if it is another one."""
    missing = [each for each in schema.names if each not in table.column_names]
    if missing:
        raise InputError("not a table of annotations: a column is missing", file=url, value=missing[0])
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"not a table of annotations: {error}", file=url) from error


def joined(manifest: pa.Table, annotations: pa.Table) -> pa.Table:
    """A manifest whose clips also have the captions and tags of the annotations; clips without any stay as they are.

    Args:
        manifest: MANIFEST rows.
        annotations: ANNOTATIONS rows; clips that are not in the manifest are passed over.
    """
    rows = annotations.to_pylist()
    return with_captions(manifest, {row["clip_id"]: _captions(row["long"], row["short"], row["tags"]) for row in rows})


def with_captions(manifest: pa.Table, extra: Mapping[str, list[dict[str, object]]]) -> pa.Table:
    """A manifest whose clips also have further captions, given by clip_id, without those that they have already."""
    place = manifest.column_names.index("captions")
    field = manifest.schema.field(place)
    captions: list[list[dict[str, object]]] = [
        [*(own or []), *(each for each in extra.get(clip, ()) if each not in (own or []))]
        for clip, own in zip(manifest["clip_id"].to_pylist(), manifest["captions"].to_pylist(), strict=True)
    ]
    return manifest.set_column(place, field, pa.array(captions, field.type))


def caption(text: str, kind: str) -> dict[str, object]:
    """A further caption of a clip, as a manifest has it."""
    return {"text": text, "kind": kind, "onset": None, "offset": None, "source": SOURCE}


def _captions(long: str | None, short: str | None, tags: Sequence[str]) -> list[dict[str, object]]:
    return [caption(text, "machine") for text in (long, short) if text] + [caption(tag, "label") for tag in tags]
