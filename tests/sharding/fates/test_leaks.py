"""Which relations to protected clips make a training clip leak."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sharding.fates.evidence import Evidence, gather
from sharding.fates.leaks import find_leak
from sharding.schema import CATALOGUE, FACTS, MATCHES
from sharding.sources.protected import parse_protect
from tests.sharding.fates.tables import EVALUATION, OTHER, WAVCAPS, Row, clip, fact, match

VALIDATION = "clotho/validation/v"


def evidence(*matches: Row) -> Evidence:
    names = (EVALUATION, VALIDATION, WAVCAPS, OTHER)
    return gather(
        pa.Table.from_pylist([clip(name) for name in names], CATALOGUE),
        pa.Table.from_pylist([fact(name) for name in names], FACTS),
        pa.Table.from_pylist(list(matches), MATCHES),
        parse_protect(),
    )


@pytest.mark.parametrize(
    ("matches", "leak"),
    [
        ([match(WAVCAPS, EVALUATION, 1.0)], ("shares_sound_with_protected", EVALUATION)),
        ([match(WAVCAPS, EVALUATION, 1.0, "undecided")], None),
        ([match(WAVCAPS, EVALUATION, 5.0, "same", "identity")], ("shares_interval_with_protected", EVALUATION)),
        ([match(WAVCAPS, EVALUATION, 0.5, "undecided", "identity")], ("shares_interval_with_protected", EVALUATION)),
        (
            [match(WAVCAPS, EVALUATION, None, "undecided", "identity", None)],
            ("shares_source_with_protected", EVALUATION),
        ),
        ([match(WAVCAPS, EVALUATION, 0.0, "different", "identity")], None),
        ([match(WAVCAPS, OTHER, 5.0)], None),
        (  # sound decides before ids, then the first protected clip by its name
            [
                match(WAVCAPS, EVALUATION, 5.0, "same", "identity"),
                match(WAVCAPS, VALIDATION, 1.0),
            ],
            ("shares_sound_with_protected", VALIDATION),
        ),
        ([match(WAVCAPS, VALIDATION), match(WAVCAPS, EVALUATION)], ("shares_sound_with_protected", EVALUATION)),
    ],
)
def test_what_counts_as_a_leak(matches: list[Row], leak: tuple[str, str] | None) -> None:
    assert find_leak(evidence(*matches), WAVCAPS, True) == leak


def test_an_unknown_part_of_the_original_leaks_only_if_the_setting_says_so() -> None:
    found = evidence(match(WAVCAPS, EVALUATION, None, "undecided", "identity", None))
    assert find_leak(found, WAVCAPS, True) is not None and find_leak(found, WAVCAPS, False) is None


def test_relations_to_clips_outside_the_catalogue_are_ignored() -> None:
    found = evidence(match(WAVCAPS, "clotho/evaluation/not-in-the-catalogue"))
    assert find_leak(found, WAVCAPS, True) is None and not found.relations
    assert found.protected == {EVALUATION, VALIDATION}
