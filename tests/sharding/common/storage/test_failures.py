from __future__ import annotations

import errno
import pickle

import pytest

from sharding.common.storage.failures import TRIES, is_full, named, persist


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.0)


class Flaky:
    """An action that fails a number of times."""

    def __init__(self, error: OSError, failures: int) -> None:
        self.error, self.failures, self.calls = error, failures, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def test_a_failure_that_passes_is_waited_out() -> None:
    action = Flaky(OSError(errno.EIO, "reset"), TRIES - 1)
    assert persist(action) == "done"


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (OSError(errno.EIO, "reset"), TRIES),
        (FileNotFoundError("gone"), 1),
        (PermissionError("no"), 1),
        (OSError(errno.ENOSPC, "full"), 1),
    ],
)
def test_a_failure_that_stays_ends_after_a_bounded_number_of_tries(error: OSError, calls: int) -> None:
    action = Flaky(error, 99)
    with pytest.raises(type(error)):
        persist(action)
    assert action.calls == calls


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (FileNotFoundError("no such bucket"), FileNotFoundError, errno.ENOENT),
        (PermissionError("no credentials"), PermissionError, errno.EACCES),
        (OSError("could not connect"), OSError, errno.EIO),
        (OSError(errno.ENOSPC, "no room"), OSError, errno.ENOSPC),
    ],
)
def test_an_error_without_a_file_gets_its_name_and_keeps_its_kind(error: OSError, kind: type, code: int) -> None:
    found = pickle.loads(pickle.dumps(named(error, "s3://bucket/x")))
    assert isinstance(found, kind) and (found.filename, found.errno) == ("s3://bucket/x", code)
    assert found.strerror in str(error) and is_full(found) == is_full(error)


def test_an_error_that_names_its_file_is_left_as_it_is() -> None:
    error = OSError(errno.EIO, "reset", "/a/b")
    assert named(error, "/c/d") is error
