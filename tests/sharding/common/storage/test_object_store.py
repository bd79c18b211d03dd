"""What an object store alone can do wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharding.build.claim import claim
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from tests.conftest import S3Failures


def test_folders_that_a_console_made_are_no_files(s3: str, tmp_path: Path) -> None:
    import boto3

    for name in ("", "sub/"):
        boto3.client("s3").put_object(Bucket="earshot", Key=f"{tmp_path.name}/{name}", Body=b"")
    assert Storage(f"{s3}/{tmp_path.name}").list() == []


def test_an_upload_that_breaks_off_leaves_what_was_there(s3: str, s3_failures: S3Failures, tmp_path: Path) -> None:
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("shard.tar", b"old")
    parts = []

    def refuse_the_second_part(request: dict[str, Any]) -> str | None:
        if "partNumber=" not in request["QUERY_STRING"]:
            return None
        parts.append(request["QUERY_STRING"])
        return "403 Forbidden" if len(parts) == 2 else None  # later ones would be taken again

    s3_failures.rule = refuse_the_second_part
    try:
        with pytest.raises(PermissionError):
            storage.write("shard.tar", bytes(130 << 20))
    finally:
        s3_failures.rule = lambda request: None
    assert len(parts) == 2
    assert storage.read("shard.tar") == b"old"
    assert storage.list() == ["shard.tar"]


def test_passing_failures_of_an_object_store_are_waited_out(s3: str, s3_failures: S3Failures, tmp_path: Path) -> None:
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("a.bin", b"0123456789")
    refused = []

    def refuse_three_times(request: dict[str, Any]) -> str | None:
        refused.append(request["PATH_INFO"])
        return "503 Slow Down" if len(refused) <= 3 else None

    s3_failures.rule = refuse_three_times
    try:
        assert storage.read("a.bin", 2, 3) == b"234"
    finally:
        s3_failures.rule = lambda request: None
    assert len(refused) == 4


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
def test_a_file_that_cannot_be_asked_for_is_not_called_absent(
    s3: str, s3_failures: S3Failures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """What is taken for absent is written anew, and what was to be moved there is removed."""
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.0)
    storage = Storage(f"{s3}/{tmp_path.name}")
    storage.write("a.bin", b"0123456789")
    s3_failures.rule = lambda request: status
    try:
        with pytest.raises(OSError):
            storage.exists("a.bin")
        with pytest.raises(OSError):
            storage.move("a.bin", "b.bin")
    finally:
        s3_failures.rule = lambda request: None
    assert storage.exists("a.bin") and not storage.exists("b.bin")


def test_a_refusal_says_where_credentials_come_from(s3: str, s3_failures: S3Failures, tmp_path: Path) -> None:
    s3_failures.rule = lambda request: "403 Forbidden"
    try:
        with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID") as caught:
            Storage(f"{s3}/{tmp_path.name}").read("a.bin")
    finally:
        s3_failures.rule = lambda request: None
    assert str(caught.value.filename).endswith("/a.bin")


def test_a_store_that_cannot_be_reached_gives_a_clear_error(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.0)
    with pytest.raises(InputError, match="bucket does not exist"), claim(Storage("s3://no-bucket-of-that-name/out")):
        pass
    with pytest.raises(InputError, match="remedy"):
        Storage("nowhere://a/b").exists("c")
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):  # no empty folder of sounds
        Storage("s3://no-bucket-of-that-name/clotho").list()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"), claim(Storage(f"{s3}/{tmp_path.name}")):
        pass
