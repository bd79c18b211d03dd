"""FSD50K (Fonseca et al., 2022; Zenodo 4060432): whole Freesound recordings, each of one or several of 200 classes.

``dev.csv`` has the splits train and val, ``eval.csv`` is the test set; val and eval are protected.  The labels, which
include those above them in AudioSet's ontology, are captions of kind ``label``.  The JSON files about the clips give
title, licence, uploader and tags.
"""

from __future__ import annotations

import json
from typing import Any

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN, check_encodable, csv_rows
from sharding.sources.base import CatalogueBuilder, DatasetTables, PublishedDataset, label_caption
from sharding.sources.identities import freesound, id_remark
from sharding.sources.tree import Tree, climbs

NAME = "fsd50k"
SPLITS = ("train", "val", "eval")
TABLES = {"dev.csv": "dev_clips_info_FSD50K.json", "eval.csv": "eval_clips_info_FSD50K.json"}


def read(root: Storage) -> DatasetTables:
    """Every recording of dev.csv and eval.csv with its labels and its split."""
    tree = Tree(root)
    paths = {name: tree.one(name) for name in TABLES}
    lacking = [name for name, path in paths.items() if path is None]
    if lacking:
        remedy = "put dev.csv and eval.csv of FSD50K.ground_truth into it (Zenodo 4060432)"
        raise InputError(f"{' and '.join(lacking)} missing", file=root.url, remedy=remedy)
    index, rows, notes = tree.index(), CatalogueBuilder(NAME, tree.outside), []
    for name, information in TABLES.items():
        path, about = tree.one(name), _information(tree, information)
        if not about:
            notes.append(f"{information} is absent: no titles, licences and uploaders")
        columns = ("fname", "labels", "split") if name == "dev.csv" else ("fname", "labels")
        for row, cells in csv_rows(tree.text(path or name), tree.name(path or name), columns):
            split = cells["split"].strip() if name == "dev.csv" else "eval"
            if split not in SPLITS or not cells["fname"].strip():
                raise InputError(
                    "the row is not of a clip in train, val or eval",
                    file=tree.name(path or name),
                    row=row,
                    value=f"{cells['fname']}: {split}",
                    remedy=FETCH_AGAIN,
                )
            found = index.one(cells["fname"])
            _add(rows, split, cells, None if climbs(cells["fname"]) else found, about.get(cells["fname"], {}))
    notes += tree.advice if len(rows.used_paths()) < len(rows) else []
    return DatasetTables(rows.table(), tree.orphans(NAME, rows.used_paths()), tuple(notes))


def _information(tree: Tree, name: str) -> dict[str, dict[str, Any]]:
    """What the JSON file says of each clip; nothing if there is no such file."""
    path = tree.one(name)
    if path is None:
        return {}
    try:
        found = json.loads(tree.text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", file=tree.name(path), remedy=FETCH_AGAIN) from error
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise InputError(
            "the file must hold one JSON object with an object for each clip", file=tree.name(path), remedy=FETCH_AGAIN
        )
    check_encodable(found, tree.name(path), None)
    return found


def _add(rows: CatalogueBuilder, split: str, cells: dict[str, str], path: str | None, about: dict[str, Any]) -> None:
    name, labels = cells["fname"], [label for label in cells["labels"].split(",") if label.strip()]
    remark = id_remark(name)
    tags = about.get("tags")
    text = {key: str(about[key]) for key in ("title", "license", "uploader") if about.get(key)}
    rows.add(
        split,
        name,
        path=path,
        out_of_root=climbs(name),
        captions=[label_caption(label) for label in labels],
        identity=freesound(name),
        interval=(0.0, None),  # the whole of its Freesound recording
        licence=text.get("license"),
        uploader=text.get("uploader"),
        title=text.get("title"),
        keywords=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        notes=([remark] if remark else []) + ([] if labels else ["no labels in the table"]),
    )


DATASET = PublishedDataset(NAME, read, {}, splits=SPLITS, protected=("val", "eval"))
