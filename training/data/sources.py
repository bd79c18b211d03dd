"""Where training data come from: builds of shards with clips, or tables of sentence pairs.

A source has ``table``, rows of MANIFEST that an order draws from, and ``dataset``, whose ``plan`` names the data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from sharding.common.errors import InputError
from sharding.shards.manifest import Manifest
from training.config.sections import Recipe
from training.curation import rewrites
from training.curation.annotations import annotations_of, checked, joined, read_beside
from training.data.captions import label_prompt, normalise
from training.data.pairs import SentencePairs
from training.data.sampling.mixture import select_rows
from training.data.settings import DataSettings, MixtureItem


def open_clips(recipe: Recipe, shards: str | None) -> Manifest:
    """The build of shards that a task on clips reads.

    Raises:
        InputError: none is named, the recipe names tables of text, or the build cannot be opened.
    """
    if recipe.data.texts:
        remedy = "remove data.texts, or choose a task on text such as text_pairs"
        raise InputError(f"the task {recipe.task.name} reads clips, and data.texts names tables of text", remedy=remedy)
    if shards is None:
        raise InputError(f"the task {recipe.task.name} reads clips", remedy="name a build: --shards OUT")
    manifest = Manifest.open(shards)
    files = recipe.data.annotation_files
    tables = {file: read_beside(file) for file in files}
    rewritten = [file for file in files if _is_rewritten(tables[file])]
    if bool(rewritten) != any(rewrites.KIND in item.captions for item in recipe.data.train):
        raise _unread(files, rewritten)
    for file in files:
        manifest = _annotated(manifest, tables[file], file)
    return manifest


def _is_rewritten(table: pa.Table) -> bool:
    """Whether a table is of `rewrite`, and not of `annotate`."""
    return "of" in table.column_names


def _unread(files: Sequence[str], rewritten: Sequence[str]) -> InputError:
    if rewritten:
        what = f"data.annotations has captions of the kind {rewrites.KIND}, and no item of data.train reads this kind"
        return InputError(what, file=rewritten[0], remedy=f"set captions: [human, {rewrites.KIND}] in an item")
    what = f"an item of data.train reads captions of the kind {rewrites.KIND}, and there are none"
    return InputError(what, file=", ".join(files) or None, remedy="name the table of `rewrite` in data.annotations")


def _annotated(manifest: Manifest, more: pa.Table, file: str) -> Manifest:
    """The build with more captions for its clips; another file of them is another plan, as for a resumed run.

    Raises:
        InputError: the table has other columns, or is about none of the clips.
    """
    if _is_rewritten(more):
        more = checked(more, rewrites.REWRITES, file)
        table, rows = rewrites.joined(manifest.table, more), more.select(["clip_id", "text"]).to_pylist()
    else:
        more = annotations_of(more, file)
        table, rows = joined(manifest.table, more), more.to_pylist()
    if not pc.any(pc.is_in(manifest.table["clip_id"], pc.unique(more["clip_id"].combine_chunks()))).as_py():
        what = f"none of its {len(more)} rows is about a clip of the build"
        remedy = "name the table that was made for this build, or leave it out of data.annotations"
        raise InputError(what, file=file, remedy=remedy)
    contents = xxhash.xxh3_64_hexdigest(repr(rows).encode("utf-8", "surrogatepass"))
    dataset = copy.copy(manifest.dataset)
    dataset["plan"] = f"{dataset['plan']} with annotations {contents}"
    return Manifest(manifest.storage, dataset, table)


def open_pairs(recipe: Recipe, shards: str | None) -> SentencePairs:
    """The tables of sentence pairs of a task on text.

    Raises:
        InputError: the recipe names none, shards are named, or a table cannot be read.
    """
    if shards is not None:
        raise InputError(
            f"the task {recipe.task.name} reads tables of text, and no shards", remedy="leave out --shards"
        )
    if not recipe.data.texts:
        remedy = "write data: {texts: {NAME: FILE.csv}, train: [{split: NAME}]}"
        raise InputError(f"the task {recipe.task.name} needs tables of sentence pairs", remedy=remedy)
    return SentencePairs.open(recipe.data.texts)


def training_captions(table: pa.Table, settings: DataSettings) -> list[str]:
    """The different captions that training reads, as the model reads them, sorted."""
    captions = _captions(table, [item for item in settings.train if item.prompt is None])
    for item in settings.train:
        if item.prompt is not None:
            labels = (
                [label for label in found if normalise(label, settings)] for found in labels_of(table, item.split)
            )
            captions |= {label_prompt(item.prompt, found) for found in labels if found}
    return sorted({normalise(text, settings) for text in captions if text} - {""})


def training_labels(table: pa.Table, settings: DataSettings) -> list[str]:
    """The different labels of the clips that training reads, sorted."""
    return sorted({label for label in _captions(table, settings.train, "label") if label})


def labels_of(table: pa.Table, split: str) -> list[list[str]]:
    """The labels of each row of a split."""
    rows = table["captions"].filter(pa.array(select_rows(table, split))).to_pylist()
    return [[caption["text"] for caption in row if caption["kind"] == "label"] for row in rows]


def _captions(table: pa.Table, items: Iterable[MixtureItem], kind: str | None = None) -> set[str]:
    texts: set[str] = set()
    for item in items:
        rows = pa.array(select_rows(table, item.split))
        captions = pc.list_flatten(table["captions"].filter(rows)).combine_chunks()
        kinds = pa.array(list(item.captions) if kind is None else [kind], pa.string())
        texts.update(captions.filter(pc.is_in(captions.field("kind"), kinds)).field("text").to_pylist())
    return texts
