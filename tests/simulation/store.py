"""An object store in memory with the semantics of S3, as a file system of fsspec under ``sim://``.

Puts are atomic, also of several parts; a conditional put fails where the object exists; a listing shows what was
written before it.  Every request is an operation of the schedule.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem

from tests.simulation.faults import Schedule


class SimulatedStore(AbstractFileSystem):
    """The store; all instances are one, as all clients of a store are."""

    protocol = "sim"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    schedule: ClassVar[Schedule | None] = None

    def _request(self, what: str, key: str, action: Any) -> Any:
        return action() if self.schedule is None else self.schedule.step(f"{what} {key}", action)

    def _key(self, path: str) -> str:
        return self._strip_protocol(path)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        key = self._key(path)

        def found() -> dict[str, Any]:
            if key not in self.objects:
                raise FileNotFoundError(key)
            return {"name": key, "size": len(self.objects[key]), "type": "file"}

        return self._request("head", key, found)

    def find(
        self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, **options: Any
    ) -> Any:
        prefix = self._key(path).rstrip("/") + "/"

        def listed() -> dict[str, Any]:
            names = sorted(name for name in self.objects if name.startswith(prefix))
            return {name: {"name": name, "size": len(self.objects[name]), "type": "file"} for name in names}

        return self._request("list", prefix, listed)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        key = self._key(path)

        def read() -> bytes:
            if key not in self.objects:
                raise FileNotFoundError(key)
            return self.objects[key][start:end]

        return self._request("get", key, read)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        key = self._key(path)

        def put() -> None:
            if mode == "create" and key in self.objects:
                raise FileExistsError(key)
            self.objects[key] = bytes(value)

        self._request("put", key, put)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        Path(lpath).write_bytes(self.cat_file(rpath))

    def rm_file(self, path: str) -> None:
        key = self._key(path)
        self._request("delete", key, lambda: self.objects.pop(key, None))

    def copy(self, path1: str, path2: str, **options: Any) -> None:
        source, target = self._key(path1), self._key(path2)

        def copied() -> None:
            if source not in self.objects:
                raise FileNotFoundError(source)
            self.objects[target] = self.objects[source]

        self._request("copy", f"{source} to {target}", copied)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return io.BytesIO(self.cat_file(path)) if mode == "rb" else _Upload(self, path)


class _Upload(io.BytesIO):
    """An upload in parts, which is visible once it is completed."""

    def __init__(self, store: SimulatedStore, path: str) -> None:
        super().__init__()
        self._store, self._path = store, path

    def close(self) -> None:
        if not self.closed:
            self._store.pipe_file(self._path, self.getvalue())
        super().close()

    def discard(self) -> None:
        super().close()

    @property
    def closed(self) -> bool:
        return super().closed

    @closed.setter
    def closed(self, value: bool) -> None:
        if value:
            super().close()


fsspec.register_implementation("sim", SimulatedStore, clobber=True)
