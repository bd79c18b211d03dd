"""Errors that a user can act on."""

from __future__ import annotations

# the remedy where a file of a finished build is damaged; it may be the only copy of what the build was made from
MEND = "run `earshot verify`; put back from a copy what it names, or build into an empty folder"


class InputError(Exception):
    """Bad input or settings: says what is wrong, where, and what to do about it.

    The command lines print the message without a traceback and exit with status 2.

    Args:
        what: the defect, in one sentence.
        file: the file or folder at fault.
        row: its row, line or item (1-based, as an editor counts).
        value: the offending value, shown in quotes.
        remedy: what the user can do, in one sentence.
    """

    def __init__(
        self,
        what: str,
        *,
        file: object = None,
        row: int | None = None,
        value: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.file, self.row, self.value, self.remedy = what, file, row, value, remedy
        where = "" if file is None else f"{file}" + ("" if row is None else f", row {row}") + ": "
        shown = "" if value is None else f" (found {value!r})"
        advice = "" if remedy is None else f"\n  remedy: {remedy}"
        super().__init__(f"{where}{what}{shown}{advice}")
