from __future__ import annotations

import pickle

from sharding.common.errors import InputError


def test_an_error_says_where_what_which_value_and_what_to_do() -> None:
    error = InputError("no such split", file="clips.csv", row=7, value="tset", remedy="write test")
    assert str(error) == "clips.csv, row 7: no such split (found 'tset')\n  remedy: write test"
    assert str(InputError("nothing to build from")) == "nothing to build from"


def test_an_error_of_a_worker_arrives_whole() -> None:
    error = pickle.loads(pickle.dumps(InputError("no such split", file="clips.csv", row=7, value=3, remedy="write 2")))
    assert (error.what, error.file, error.row, error.value, error.remedy) == (
        "no such split", "clips.csv", 7, 3, "write 2",
    )  # fmt: skip
    assert str(error) == "clips.csv, row 7: no such split (found 3)\n  remedy: write 2"
