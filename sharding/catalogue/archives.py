"""Datasets that still lie in archives: a build says which commands unpack them."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.compute as pc

from sharding.catalogue.table import Catalogue
from sharding.common.errors import InputError
from sharding.sources.tree import RUN


def require_unpacked(catalogue: Catalogue, folders: Mapping[str, str]) -> None:
    """Refuse datasets of which a whole part lies in archives that cannot be read in place.

    Args:
        catalogue: what the tables and the folders say.
        folders: the folder of each dataset.

    Raises:
        InputError: names the part and the commands.
    """
    for name, folder in folders.items():
        commands = [note.partition(RUN)[2] for note in catalogue.notes.get(name, ()) if RUN in note]
        if not commands:
            continue
        rows = catalogue.of(name)
        found = rows.group_by("part").aggregate([("path", "count")])
        empty = sorted(found.filter(pc.equal(found["path_count"], 0))["part"].to_pylist())
        if empty:
            raise InputError(
                f"no recording of {name}/{empty[0]} can be read, and archives lie there that must be unpacked first",
                file=folder,
                remedy="run these commands in that folder, then the same command again; or move the archives "
                "elsewhere, and the clips count as missing:\n    " + "\n    ".join(commands),
            )
