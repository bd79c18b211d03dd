"""A dataset's folder, listed once: its tables, its audio files, and the members of its zip archives."""

from __future__ import annotations

import posixpath
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import FOLLOW_LINKS, Storage
from sharding.common.tables import decode
from sharding.layout import Work, in_work
from sharding.sources.base import orphans_table

# Best first: of several copies of a recording, the one with the least loss is used.
AUDIO_SUFFIXES = (
    ".flac", ".wav", ".aif", ".aiff", ".aifc", ".w64", ".rf64", ".caf", ".au", ".opus", ".ogg", ".oga", ".m4a",
    ".aac", ".mp3", ".mp4", ".webm", ".mka", ".mkv", ".wma", ".3gp", ".amr",
)  # fmt: skip
_RANK = {suffix: rank for rank, suffix in enumerate(AUDIO_SUFFIXES)}
_UNPACK = {
    ".7z": "7z x {name}",
    ".tar": "tar -xf {name}",
    ".tar.gz": "tar -xf {name}",
    ".rar": "unrar x {name}",
    ".hdf": "write its recordings out as files named <youtube_id>_<start>.*",
    ".h5": "write its recordings out as files named <youtube_id>_<start>.*",
}
RUN = "; run: "  # stands before a command in advice to the user
_OF_A_BUILD = f"/{in_work(Work.SETTINGS)}"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Tree:
    """Every file below a dataset's folder, from one listing; a zip member is named ``ARCHIVE.zip!/MEMBER``."""

    def __init__(self, root: Storage) -> None:
        self.root = root
        listing = root.listing()
        self.outside = frozenset(listing.outside)  # reached only through links that lead out of the folder
        listed = sorted([*listing.names, *listing.outside])
        if not listed and root.local is not None and not root.local.is_dir():
            raise InputError("no such folder", file=root.url, remedy="give the folder that the dataset lies in")
        self.files: list[str] = []
        self.misnamed: list[str] = []  # files whose names are not UTF-8; other bytes are shown as escapes
        self.advice: list[str] = []  # for people: how to make files readable that were not read
        names = set(listed)
        builds = tuple(path.removesuffix(_OF_A_BUILD) + "/" for path in listed if path.endswith(_OF_A_BUILD))
        for path in listed:
            if _is_junk(path) or path.startswith(builds):  # a build's OUT may lie inside its input
                continue
            if not _is_text(path):
                self.misnamed.append(path.encode("utf-8", "backslashreplace").decode())
                continue
            self.files.append(path)
            if path in self.outside:
                continue
            if path.lower().endswith(".zip"):
                self._look_into(path, names)
            for suffix, command in _UNPACK.items():
                if path.lower().endswith(suffix):
                    self.advice.append(f"{path} cannot be read in place{RUN}{command.format(name=path)}")

        if self.outside:
            self.advice.append(
                f"links lead out of the dataset's folder and were not followed; files behind them: "
                f"{len(self.outside)}, such as {min(self.outside)}; {FOLLOW_LINKS}"
            )

    def _look_into(self, path: str, names: set[str]) -> None:
        stem = path[:-4]
        if f"{stem}.z01" in names or f"{stem}.Z01" in names:
            self.advice.append(f"{path} is the last part of a split archive{RUN}zip -FF {path} --out {stem}_merged.zip")
            return
        self._check_regular(path)
        try:
            with self.root.open(path) as stream, zipfile.ZipFile(stream) as archive:
                members = sorted(name for name in archive.namelist() if not name.endswith("/"))
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
            raise InputError(
                f"not a whole zip archive ({error})",
                file=self.name(path),
                remedy=f"download it again, or repair it: zip -FF {path} --out {stem}_merged.zip, and move it away",
            ) from error
        self.files += [f"{path}!/{member}" for member in members if not _is_junk(member)]

    def name(self, path: str) -> str:
        """A file's full name, for messages."""
        return f"{str(self.root.url).rstrip('/')}/{path}"

    def named(self, *basenames: str) -> list[str]:
        """Tables of those names in any folder, sorted."""
        return [path for path in self._tables if posixpath.basename(path) in basenames]

    def one(self, basename: str) -> str | None:
        """The table of that name; of several, the first, if all hold the same bytes.

        Raises:
            InputError: two tables of that name differ, and nothing says which one is right.
        """
        found = self.named(basename)
        if len(found) > 1 and len({self.read(path) for path in found}) > 1:
            raise InputError(
                f"two different tables of one name: {found[0]} and {found[1]}",
                file=self.name(found[1]),
                remedy="keep the right one, and move the other out of the folder",
            )
        return found[0] if found else None

    @cached_property
    def _tables(self) -> list[str]:
        return [path for path in self.files if path.lower().endswith((".csv", ".json", ".jsonl", ".txt"))]

    def read(self, path: str) -> bytes:
        """The bytes of a table.

        Raises:
            InputError: it is a pipe, a socket or a device, or a link that leads out of the folder.
        """
        self._check_regular(path)
        with self.root.open(path) as stream:
            return stream.read()

    def _check_regular(self, path: str) -> None:
        """Refuse what is not a regular file: opening a named pipe can wait for ever."""
        if self.root.local is not None and path not in self.outside and not self.root.exists(path):
            raise InputError(
                "not a regular file but a pipe, a socket or a device",
                file=self.name(path), remedy="put the file itself there",
            )  # fmt: skip

    def text(self, path: str, encoding: str = "utf-8") -> str:
        """The text of a table."""
        return decode(self.read(path), self.name(path), encoding)

    def find(self, path: str) -> str | None:
        """A file by its path in any Unicode form (macOS writes "é" as two characters); None if it is absent."""
        return path if path in self.file_set else self._by_normal_form.get(unicodedata.normalize("NFC", path))

    @cached_property
    def _by_normal_form(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", path): path for path in self.files}

    @cached_property
    def file_set(self) -> frozenset[str]:
        """Every file, as a set."""
        return frozenset(self.files)

    @cached_property
    def audio(self) -> list[str]:
        """Every audio file, sorted by path."""
        return [path for path in self.files if suffix_of(path) in _RANK]

    def index(self, paths: Iterable[str] | None = None) -> AudioIndex:
        """Audio files by their names without the suffix; default: all."""
        return AudioIndex(self.audio if paths is None else paths, self.outside)

    def orphans(self, dataset: str, claimed: Collection[str]) -> pa.Table:
        """ORPHANS: audio files that no row claimed, and files whose names no table can spell."""
        unclaimed = set(self.audio).difference(claimed, self.outside)
        why = dict.fromkeys(unclaimed, "no row of the tables names it")
        return orphans_table(dataset, why | dict.fromkeys(self.misnamed, "its name is not UTF-8: rename it"))


class AudioIndex:
    """Audio files by their names without the suffix."""

    def __init__(self, paths: Iterable[str], outside: Collection[str] = ()) -> None:
        self._outside = outside
        self._paths: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self._paths[stem_of(path)].append(path)

    def all(self, stem: str) -> list[str]:
        """Every file of that name, best first: inside the folder, then the least lossy suffix, then by path."""
        found = self._paths.get(stem)
        if found is None:
            return []
        return (
            sorted(found, key=lambda path: (path in self._outside, _RANK[suffix_of(path)], path))
            if len(found) > 1
            else found
        )

    def one(self, stem: str) -> str | None:
        """The best file of that name."""
        found = self.all(stem)
        return found[0] if found else None


def suffix_of(path: str) -> str:
    """The suffix in lower case, dot included."""
    return posixpath.splitext(path)[1].lower()


def stem_of(path: str) -> str:
    """The file's name without an audio suffix; other dots belong to the name."""
    name = path.rpartition("/")[2]
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in _RANK else name


def folders(path: str) -> list[str]:
    """The folders of a path, outermost first; an archive counts as a folder without its ``.zip``."""
    return [part[:-5] if part.lower().endswith(".zip!") else part for part in path.split("/")[:-1]]


def climbs(name: str) -> bool:
    """Whether a name from a table points out of the dataset's folder."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or _DRIVE.match(name) or "\0" in name:
        return True
    return posixpath.normpath(plain).split("/")[0] == ".."


def _is_text(path: str) -> bool:
    """Whether a name is UTF-8.  Linux allows any bytes; Python represents the others as surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_junk(path: str) -> bool:
    """Whether a file is one that macOS adds to archives and network shares."""
    return path.startswith("__MACOSX/") or "/__MACOSX/" in path or path.rpartition("/")[2].startswith("._")
