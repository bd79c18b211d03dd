"""Who may import whom: the packages form layers, and no import points up."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("sharding", "training", "ray_jobs")  # from the lowest layer to the highest
OF_SHARDING_IN_TRAINING = (
    "sharding.common",
    "sharding.layout",
    "sharding.schema",
    "sharding.audio",
    "sharding.shards.checksum",
    "sharding.shards.manifest",
    "sharding.sources.protected",  # which splits no run may train on is defined once
)


def imports_of(package: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) of every import statement, also of those inside functions."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path), name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield str(path), node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_one_above_it(package: str) -> None:
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    assert [found for found in imports_of(package) if found[1].split(".")[0] in above] == []


def test_training_uses_only_what_shards_are_made_of() -> None:
    found = [(file, name) for file, name in imports_of("training") if name.split(".")[0] == "sharding"]
    assert [each for each in found if not each[1].startswith(OF_SHARDING_IN_TRAINING)] == []


@pytest.mark.parametrize(("package", "library"), [("sharding", "torch"), ("sharding", "ray"), ("training", "ray")])
def test_libraries_stay_where_they_belong(package: str, library: str) -> None:
    assert [found for found in imports_of(package) if found[1].split(".")[0] == library] == []
