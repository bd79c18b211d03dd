"""What can be wrong with a sound file: one list of error classes, which facts, fates and reports share."""

from __future__ import annotations

ERROR_CLASSES: dict[str, str] = {
    "missing": "there is no file at the path that the dataset names",
    "out_of_root": "the path leads out of the dataset's folder",
    "unreadable": "the file exists, but its bytes cannot be read: a folder, no permission, a damaged archive or disk",
    "empty": "the file has no bytes, or a valid header and not one sample",
    "not_audio": "the file is in no audio format that Earshot knows: a web page, text, a picture, noise",
    "truncated": "the file ends before its own structure says that it does",
    "undecodable": "the file is damaged or self-contradictory, or no decoder knows its coding",
    "silent": "every sample has the same value",
    "too_short": "the recording is shorter than the shortest allowed",
    "too_long": "the recording is longer than the longest allowed",
    "crashed": "this file ended the decoder's process, several times",
    "timeout": "decoding took longer than the size of the file explains",
    "out_of_memory": "decoding needed more memory than a decoder may use",
}


class AudioError(Exception):
    """A recording that cannot be used: its class among ``ERROR_CLASSES``, and what exactly is wrong, in words."""

    def __init__(self, error: str, detail: str) -> None:
        if error not in ERROR_CLASSES:
            raise ValueError(f"no such error class: {error}")
        self.error, self.detail = error, detail
        super().__init__(f"{error}: {detail}")

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.error, self.detail)
