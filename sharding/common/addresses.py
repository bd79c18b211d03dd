"""Telling addresses of object stores from folders of this machine."""

from __future__ import annotations


def is_address(place: object) -> bool:
    """Whether a folder is named by an address such as ``s3://bucket/folder``."""
    return "://" in str(place)
