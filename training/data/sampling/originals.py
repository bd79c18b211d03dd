"""Where the clips of a build come from."""

from __future__ import annotations

from typing import Any

from sharding.common.storage import Storage
from sharding.layout import Work, work_of


def original_paths(manifest: Any) -> dict[str, str]:
    """The original file of each clip: below the dataset's folder where the build's work folder still names it."""
    storage: Storage = manifest.storage
    work = work_of(storage)
    folders: dict[str, Any] = {}
    if work.exists(Work.SETTINGS):
        settings = work.read_json(Work.SETTINGS)
        for key in ("roots", "sources"):
            if isinstance(settings.get(key), dict):
                folders |= settings[key]
    paths: dict[str, str] = {}
    for name in manifest.catalogue():
        table = storage.read_table(name, ["clip_id", "dataset", "path"])
        for clip, dataset, path in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if path is not None:
                paths[clip] = f"{str(folders[dataset]).rstrip('/')}/{path}" if dataset in folders else path
    return paths
