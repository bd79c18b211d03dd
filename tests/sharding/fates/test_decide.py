from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.fates.decide import REASONS, FateSettings, decide
from sharding.schema import CATALOGUE, FACTS, FATES, MATCHES
from tests.sharding.fates.tables import (
    CLOTHO,
    EVALUATION,
    OTHER,
    WAVCAPS,
    captions_of,
    clip,
    explained,
    fact,
    fates,
    match,
)


def test_a_duplicate_of_a_dropped_container_names_the_written_excerpt():
    clips = [clip(CLOTHO, "human", 5), clip(WAVCAPS), clip(OTHER)]
    facts = [fact(CLOTHO, 20), fact(WAVCAPS, 600), fact(OTHER, 600)]
    found = fates(clips, facts, explained(match(CLOTHO, WAVCAPS, 20), match(WAVCAPS, OTHER, 600)))
    assert found[CLOTHO]["fate"] == "written"
    for name in (WAVCAPS, OTHER):
        assert (found[name]["reason"], found[name]["other"]) == ("contains_captioned_excerpt", CLOTHO)


def test_a_clotho_clip_keeps_only_its_own_captions_and_the_recording_around_it_is_dropped():
    clips, facts = [clip(CLOTHO, "human", 5), clip(WAVCAPS)], [fact(CLOTHO, 20), fact(WAVCAPS, 600)]
    matches = explained(match(CLOTHO, WAVCAPS, 20))
    found = fates(clips, facts, matches)
    assert found[CLOTHO]["fate"] == "written"
    assert (found[WAVCAPS]["fate"], found[WAVCAPS]["reason"]) == ("duplicate", "contains_captioned_excerpt")
    assert found[WAVCAPS]["other"] == CLOTHO
    texts = [c["text"] for c in captions_of(CLOTHO, clips, facts, found, matches)]
    assert texts == [f"{CLOTHO} {k}" for k in range(5)]
    kept = fates(clips, facts, matches, keep_containers=True)
    assert kept[WAVCAPS]["fate"] == "written" and kept[WAVCAPS]["group"] == kept[CLOTHO]["group"]


def test_clips_of_one_interval_become_one_that_has_all_captions_with_their_provenance():
    clips = [clip(CLOTHO, "human", 5), clip(WAVCAPS), clip(OTHER)]
    pairs = explained(*(match(a, b, 9.8) for a, b in combinations((CLOTHO, WAVCAPS, OTHER), 2)))
    facts = [fact(c["clip_id"]) for c in clips]
    found = fates(clips, facts, pairs)
    assert [found[c]["fate"] for c in (CLOTHO, WAVCAPS, OTHER)] == ["written", "duplicate", "duplicate"]
    captions = captions_of(CLOTHO, clips, facts, found, pairs)
    assert [c["source"] for c in captions] == [None] * 5 + [WAVCAPS, OTHER]


def test_of_machine_captioned_copies_the_one_with_more_bandwidth_stays():
    clips = [clip(WAVCAPS), clip(OTHER)]
    facts = [fact(WAVCAPS, bandwidth=4000.0), fact(OTHER, bandwidth=15000.0)]
    found = fates(clips, facts, explained(match(WAVCAPS, OTHER)))
    assert (found[WAVCAPS]["fate"], found[WAVCAPS]["other"]) == ("duplicate", OTHER)


@pytest.mark.parametrize("evidence", ["nothing", "different"])
@pytest.mark.parametrize(("kinds", "durations"), [(("machine", "machine"), (10, 10)), (("human", "machine"), (10, 60))])
def test_a_clip_that_is_not_explained_over_the_whole_overlap_is_written(evidence, kinds, durations):
    """Two clips of one interval, and a long clip around one with human captions: shared sound alone removes neither."""
    names = (WAVCAPS, OTHER)
    clips = [clip(name, kind) for name, kind in zip(names, kinds, strict=True)]
    facts = [fact(name, duration) for name, duration in zip(names, durations, strict=True)]
    pairs = [match(*names)]
    if evidence == "different":
        more = {"clip_id": OTHER, "start_s": 2.0, "duration_s": 1.0, "low_hz": 4400.0, "high_hz": 7700.0}
        more["above_db"] = 9.0
        pairs.append(match(*names, outcome="different", method="residual") | {"difference": more})
    found = fates(clips, facts, pairs)
    assert {f["fate"] for f in found.values()} == {"written"}
    assert found[WAVCAPS]["kin"] == found[OTHER]["kin"]
    assert any(f["fate"] == "duplicate" for f in fates(clips, facts, explained(match(*names))).values())


@pytest.mark.parametrize("method", ["source_bytes", "pcm"])
def test_equal_samples_need_no_further_evidence(method):
    found = fates([clip(WAVCAPS), clip(OTHER)], [fact(WAVCAPS), fact(OTHER)], [match(WAVCAPS, OTHER, method=method)])
    assert (found[OTHER]["fate"], found[OTHER]["other"]) == ("duplicate", WAVCAPS)


def test_a_mix_that_holds_protected_sound_is_withheld_although_it_holds_more():
    rows = [match(EVALUATION, OTHER), match(EVALUATION, OTHER, outcome="different", method="residual")]
    found = fates([clip(EVALUATION, "human"), clip(OTHER)], [fact(EVALUATION), fact(OTHER)], rows)
    assert (found[OTHER]["fate"], found[OTHER]["other"]) == ("withheld", EVALUATION)


def test_a_partial_overlap_deletes_nothing():
    clips = [clip(WAVCAPS), clip(OTHER)]
    found = fates(clips, [fact(WAVCAPS), fact(OTHER)], [match(WAVCAPS, OTHER, 6.0)])
    assert {f["fate"] for f in found.values()} == {"written"}
    assert found[WAVCAPS]["group"] == found[OTHER]["group"]


def test_undecided_pairs_are_kept_as_kin_and_not_as_one_group():
    clips = [clip(EVALUATION, "human"), clip(OTHER)]
    found = fates(clips, [fact(EVALUATION), fact(OTHER)], [match(EVALUATION, OTHER, outcome="undecided")])
    assert {f["fate"] for f in found.values()} == {"written"}
    assert found[EVALUATION]["group"] != found[OTHER]["group"]
    assert found[EVALUATION]["kin"] == found[OTHER]["kin"] == EVALUATION


def test_leaks_are_judged_pair_by_pair_and_never_along_a_chain():
    clips = [clip(EVALUATION, "human"), clip(WAVCAPS), clip(OTHER)]
    pairs = [match(EVALUATION, WAVCAPS, 3.0), match(WAVCAPS, OTHER, 3.0)]
    found = fates(clips, [fact(c["clip_id"]) for c in clips], pairs)
    assert (found[WAVCAPS]["fate"], found[WAVCAPS]["other"]) == ("withheld", EVALUATION)
    assert found[OTHER]["fate"] == "written"


def test_two_protected_clips_that_overlap_are_both_kept_and_named():
    second = "clotho/validation/v"
    found = fates(
        [clip(EVALUATION, "human"), clip(second, "human")],
        [fact(EVALUATION), fact(second)],
        [match(EVALUATION, second)],
    )
    assert found[EVALUATION]["fate"] == found[second]["fate"] == "written"
    assert found[EVALUATION]["other"] == second


def test_an_unknown_part_of_a_protected_original_is_withheld_unless_the_setting_allows_it():
    clips = [clip("audiocaps/test/a", "human", identity="youtube:abc@30.000"), clip(WAVCAPS, identity="youtube:abc")]
    pairs = [match("audiocaps/test/a", WAVCAPS, None, "undecided", "identity", None)]
    facts = [fact("audiocaps/test/a"), fact(WAVCAPS)]
    assert fates(clips, facts, pairs)[WAVCAPS]["reason"] == "shares_source_with_protected"
    kept = fates(clips, facts, pairs, withhold_unknown_part=False)
    assert kept[WAVCAPS]["fate"] == "written" and kept[WAVCAPS]["kin"] == "audiocaps/test/a"


def test_a_protected_clip_that_failed_still_protects_by_its_id():
    clips = [clip("audiocaps/test/a", "human"), clip(WAVCAPS)]
    pairs = [match("audiocaps/test/a", WAVCAPS, 10.0, "same", "identity")]
    found = fates(clips, [fact("audiocaps/test/a", None, "missing"), fact(WAVCAPS)], pairs)
    assert found["audiocaps/test/a"]["fate"] == "failed"
    assert found[WAVCAPS]["reason"] == "shares_interval_with_protected"


def test_listed_failed_and_uncaptioned_clips_say_so():
    clips = [
        clip(WAVCAPS),
        clip(OTHER, captions=0),
        clip("wavcaps/train/y"),
        clip("wavcaps/train/z", problem="missing"),
    ]
    facts = [fact(WAVCAPS), fact(OTHER), fact("wavcaps/train/y", error="truncated")]
    found = fates(clips, facts, [], listed={WAVCAPS})
    assert {(f["fate"], f["reason"]) for f in found.values()} == {
        ("withheld", "listed"),
        ("filtered", "no_caption"),
        ("failed", "truncated"),
        ("failed", "missing"),
    }


def test_an_effect_in_hundreds_of_clips_joins_them_neither_in_a_group_nor_in_kin():
    names = [f"wavcaps/train/{k:03d}" for k in range(200)]
    pairs = [match(common, name, 2.0) for common in names[:8] for name in names[8:]]
    found = fates([clip(n) for n in names], [fact(n) for n in names], pairs)
    assert max(np.unique([f["group"] for f in found.values()], return_counts=True)[1]) == 1
    assert max(np.unique([f["kin"] for f in found.values()], return_counts=True)[1]) == 1


NAMES = [f"clotho/{s}/{k}" for s in ("development", "validation", "evaluation") for k in range(3)] + [
    f"wavcaps/train/{k}" for k in range(6)
]
worlds = st.fixed_dictionaries(
    {
        "kinds": st.lists(st.sampled_from(["human", "machine"]), min_size=len(NAMES), max_size=len(NAMES)),
        "captions": st.lists(st.integers(0, 2), min_size=len(NAMES), max_size=len(NAMES)),
        "durations": st.lists(st.sampled_from([5.0, 10.0, 10.2, 60.0]), min_size=len(NAMES), max_size=len(NAMES)),
        "errors": st.lists(st.sampled_from([None, None, None, "empty"]), min_size=len(NAMES), max_size=len(NAMES)),
        "pairs": st.lists(
            st.tuples(
                st.sampled_from(NAMES),
                st.sampled_from(NAMES),
                st.sampled_from(["waveform", "residual", "pcm", "identity", "fingerprint", "caption"]),
                st.sampled_from(["same", "different", "undecided"]),
                st.sampled_from([0.0, 2.0, 5.0, 9.9, 10.0]),
            ),
            max_size=30,
        ),
        "listed": st.sets(st.sampled_from(NAMES[-6:])),
        "keep_containers": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_fates_add_up_leak_nothing_and_do_not_depend_on_the_order_of_rows(world, random):
    clips = [clip(n, k, c) for n, k, c in zip(NAMES, world["kinds"], world["captions"], strict=True)]
    facts = [fact(n, d, e) for n, d, e in zip(NAMES, world["durations"], world["errors"], strict=True)]
    pairs = [match(a, b, o, out, m) for a, b, m, out, o in world["pairs"] if a != b]
    found = fates(clips, facts, pairs, world["listed"], keep_containers=world["keep_containers"])
    assert sorted(found) == sorted(NAMES)
    assert all(row["reason"] in REASONS for row in found.values())
    protected = {n for n in NAMES if n.split("/")[1] in ("validation", "evaluation")}
    for row in pairs:
        verified = row["method"] in ("waveform", "pcm") and row["outcome"] == "same"
        for mine, other in ((row["a"], row["b"]), (row["b"], row["a"])):
            if verified and other in protected and mine not in protected:
                assert found[mine]["fate"] != "written"
    for row in found.values():
        if row["fate"] == "duplicate":
            assert found[row["other"]]["fate"] == "written"
            told = [p for p in pairs if {p["a"], p["b"]} == {row["clip_id"], row["other"]} and p["outcome"] == "same"]
            assert {p["method"] for p in told} & {"waveform", "pcm"}
            assert {p["method"] for p in told} & {"residual", "pcm"}
    for rows in (clips, facts, pairs):
        random.shuffle(rows)
    assert fates(clips, facts, pairs, world["listed"], keep_containers=world["keep_containers"]) == found


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        # each pair differs in one property; the name would decide otherwise
        ((WAVCAPS, "human", 10.0, 100.0), ("audiocaps/train/a", "machine", 10.0, 100.0)),
        ((WAVCAPS, "machine", 10.0, 100.0), ("audiocaps/train/a", "label", 10.0, 100.0)),
        ((WAVCAPS, "machine", 10.4, 100.0), ("audiocaps/train/a", "machine", 10.1, 900.0)),
        ((WAVCAPS, "machine", 10.02, 900.0), ("audiocaps/train/a", "machine", 10.04, 100.0)),
        (("audiocaps/train/a", "machine", 10.0, 100.0), (WAVCAPS, "machine", 10.0, 100.0)),
        # clips of a kept split win, whatever else holds
        ((CLOTHO, "machine", 10.0, 100.0), ("audiocaps/train/a", "human", 10.4, 900.0)),
    ],
)
def test_which_of_two_clips_of_one_interval_is_written(
    winner: tuple[str, str, float, float], loser: tuple[str, str, float, float]
) -> None:
    both = winner, loser
    clips = [clip(name, kind) for name, kind, _, _ in both]
    facts = [fact(name, seconds, bandwidth=bandwidth) for name, _, seconds, bandwidth in both]
    found = fates(clips, facts, explained(match(winner[0], loser[0], 10.0)))
    assert (found[winner[0]]["fate"], found[winner[0]]["other"]) == ("written", None)
    assert (found[loser[0]]["fate"], found[loser[0]]["other"]) == ("duplicate", winner[0])


def test_the_settings_of_the_policy_have_their_documented_defaults() -> None:
    policy = FateSettings()
    assert (policy.same_interval, policy.common, policy.leaks) == (0.95, 50, "withhold")
    assert policy.withhold_unknown_part and not policy.keep_containers


def test_fates_that_were_fixed_before_do_not_change_and_new_clips_become_duplicates_of_them() -> None:
    clips = [clip(WAVCAPS), clip(CLOTHO, "human")]
    facts = [fact(WAVCAPS), fact(CLOTHO)]
    tables = [
        pa.Table.from_pylist(rows, schema)
        for rows, schema in ((clips, CATALOGUE), (facts, FACTS), (explained(match(WAVCAPS, CLOTHO)), MATCHES))
    ]
    row = {"clip_id": WAVCAPS, "fate": "written", "reason": "kept", "group": WAVCAPS, "kin": WAVCAPS, "keys": []}
    fixed = pa.Table.from_pylist([row], FATES)
    policy = FateSettings(keep=frozenset())
    found = {row["clip_id"]: row for row in decide(*tables, settings=policy, fixed=fixed).to_pylist()}
    assert (found[WAVCAPS]["fate"], found[WAVCAPS]["reason"]) == ("written", "kept")
    assert (found[CLOTHO]["fate"], found[CLOTHO]["other"]) == ("duplicate", WAVCAPS)
    assert found[WAVCAPS]["group"] == found[CLOTHO]["group"] == CLOTHO
