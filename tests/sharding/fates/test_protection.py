"""Which protected clips were compared, and when a build must refuse."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.fates.protection import check_protection, is_unprotected, protection, protection_line
from sharding.schema import CATALOGUE, FACTS
from sharding.sources import DATASETS
from sharding.sources.protected import parse_protect
from tests.sharding.fates.tables import clip, explained, fact, fates, match


def tables(split: str, readable: int, missing: int, damaged: int = 0) -> tuple[pa.Table, pa.Table]:
    names = [f"{split}/{number}" for number in range(readable + missing + damaged)]
    problems = [None] * readable + ["missing"] * missing + [None] * damaged
    errors = [None] * readable + ["missing"] * missing + ["truncated"] * damaged
    clips = [clip(name, "human", problem=problem) for name, problem in zip(names, problems, strict=True)]
    facts = [fact(name, error=error) for name, error in zip(names, errors, strict=True)]
    return pa.Table.from_pylist(clips, CATALOGUE), pa.Table.from_pylist(facts, FACTS)


def refused(split: str, readable: int, missing: int, damaged: int = 0) -> bool:
    found = protection(*tables(split, readable, missing, damaged), parse_protect(f"{split}"))
    return any(is_unprotected(one) for one in found)


def test_a_protected_split_without_audio_is_refused_before_anything_is_decoded() -> None:
    catalogue, _ = tables("clotho/evaluation", 0, 4)
    found = protection(catalogue, None, parse_protect("clotho/evaluation"))
    with pytest.raises(InputError, match=r"0 of 4 clips of clotho/evaluation \(4 missing\)") as caught:
        check_protection(found)
    assert "--allow-unprotected" in str(caught.value)


def test_audio_behind_links_names_the_option_that_follows_them() -> None:
    rows = [clip(f"clotho/evaluation/{number}", "human", problem="out_of_root") for number in range(3)]
    with pytest.raises(InputError, match="--follow-links"):
        check_protection(protection(pa.Table.from_pylist(rows, CATALOGUE), None, parse_protect()))


@pytest.mark.parametrize(
    ("split", "readable", "missing", "damaged", "refuses"),
    [
        ("clotho/evaluation", 1045, 0, 0, False),
        ("clotho/evaluation", 1038, 5, 2, False),
        ("clotho/evaluation", 500, 545, 0, True),
        ("clotho/evaluation", 500, 0, 545, True),
        ("clotho/evaluation", 1, 2, 0, False),  # two clips say nothing about the copy
        ("clotho/evaluation", 1, 3, 0, True),
        ("clotho/evaluation", 57, 3, 0, False),  # 95 %
        ("clotho/evaluation", 56, 3, 0, True),
        ("audiocaps/val", 380, 115, 0, False),  # videos disappear
        ("audiocaps/val", 100, 395, 0, True),
        ("audiocaps/test", 0, 0, 1, True),
        ("mine/test", 6, 4, 0, False),
        ("mine/test", 4, 6, 0, True),
        ("mine/test", 0, 1, 0, True),
    ],
)
def test_far_less_audio_than_a_usual_copy_has_is_refused(
    split: str, readable: int, missing: int, damaged: int, refuses: bool
) -> None:
    assert refused(split, readable, missing, damaged) == refuses


def test_every_protected_clip_is_counted() -> None:
    catalogue, facts = tables("clotho/evaluation", 1038, 5, 2)
    evaluation, validation = protection(catalogue, facts, parse_protect("clotho/evaluation,clotho/validation"))
    assert evaluation["compared"] + sum(evaluation["not_compared"].values()) == evaluation["clips"] == 1045
    line = protection_line(evaluation)
    assert line.startswith("leaks by sound were checked against 1,038 of 1,045 clips of clotho/evaluation")
    assert "5 missing, 2 truncated" in line
    assert validation["clips"] == 0 and "not compared" in protection_line(validation)
    assert not is_unprotected(validation) and not is_unprotected(evaluation)


def test_test_and_validation_splits_of_own_datasets_are_protected_by_default() -> None:
    rows = [clip(f"mine/{split}/a") for split in ("train", "Test-clean", "validation", "all", "development")] + [
        clip("wavcaps/test/a")
    ]
    found = protection(pa.Table.from_pylist(rows, CATALOGUE), None, parse_protect())
    assert [one["split"] for one in found if one["dataset"] == "mine"] == ["Test-clean", "validation"]
    published = {name for name, dataset in DATASETS.items() if dataset.protected}
    assert {one["dataset"] for one in found} == {"mine"} | published


PROTECTED = [f"clotho/evaluation/{number}" for number in range(4)]
TRAINING = [f"wavcaps/train/{number}" for number in range(6)]


@settings(max_examples=80, deadline=None)
@given(
    st.sets(st.tuples(st.sampled_from(PROTECTED), st.sampled_from(TRAINING)), max_size=12),
    st.sets(st.tuples(st.sampled_from(TRAINING), st.sampled_from(TRAINING)), max_size=6),
    st.sets(st.sampled_from(PROTECTED)),
)
def test_without_some_protected_audio_more_clips_are_never_written_in_silence(
    leaks: set[tuple[str, str]], copies: set[tuple[str, str]], removed: set[str]
) -> None:
    """Removing protected audio can let leaks through, and then the clips that were not compared are counted."""
    clips = [clip(name, "human") for name in PROTECTED + TRAINING]
    pairs = [match(a, b, 5.0) for a, b in sorted(leaks)] + explained(
        *(match(a, b) for a, b in sorted(copies) if a != b)
    )
    whole = fates(clips, [fact(one["clip_id"]) for one in clips], pairs)
    facts = [fact(one["clip_id"], error="missing" if one["clip_id"] in removed else None) for one in clips]
    left = fates(clips, facts, [pair for pair in pairs if not removed & {pair["a"], pair["b"]}])
    counts = protection(
        pa.Table.from_pylist(clips, CATALOGUE), pa.Table.from_pylist(facts, FACTS), {("clotho", "evaluation")}
    )
    (split,) = counts
    assert split["compared"] == len(PROTECTED) - len(removed)
    assert split["not_compared"] == ({"missing": len(removed)} if removed else {})
    written = [sum(found[name]["fate"] == "written" for name in TRAINING) for found in (whole, left)]
    if written[1] > written[0]:
        assert removed and "missing" in protection_line(split)
    if removed == set(PROTECTED):
        assert is_unprotected(split)
