import io
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import soundfile
import soxr

from sharding.common.progress import Progress
from sharding.dedup.candidates import JoinSettings
from sharding.dedup.comparing import MatchSettings
from sharding.dedup.fingerprint import RATE, fingerprint
from sharding.dedup.grouping import relations
from sharding.dedup.matching import find_matches
from sharding.dedup.waveform import align_and_compare
from sharding.schema import CATALOGUE, FACTS, FINGERPRINTS, MATCHES
from tests.sharding.dedup import hard_cases

SEED = 7


class Collection:
    """Clips in memory as a build holds them."""

    def __init__(self, clips, hashes=None, protected=()):
        self.clips = clips
        self.catalogue = pa.Table.from_pylist(
            [{"clip_id": c, "dataset": "clotho", "split": "evaluation" if c in protected else "x"} for c in clips],
            CATALOGUE,
        )
        self.facts = pa.Table.from_pylist(
            [
                {"clip_id": c, "duration_s": len(w) / RATE, "pcm_sha256": (hashes or {}).get(c)}
                for c, w in clips.items()
            ],
            FACTS,
        )
        prints = {c: fingerprint(w, RATE) for c, w in clips.items()}
        self.fingerprints = pa.Table.from_pylist(
            [{"clip_id": c, "codes": p.codes.tobytes(), "flags": p.flags.tobytes()} for c, p in prints.items()],
            FINGERPRINTS,
        )

    def wave(self, clip_id, start_s, duration_s, rate=RATE):
        start = round(start_s * RATE)
        part = self.clips[clip_id][start : start + round(duration_s * RATE)]
        return part if rate == RATE else soxr.resample(part.astype(np.float32), RATE, rate)

    def matches(self, identity=None, settings=None, **more):
        identity = MATCHES.empty_table() if identity is None else identity
        return find_matches(self.catalogue, self.facts, self.fingerprints, self.wave, identity, settings, **more)


def scene(number, seconds=12.0):
    return soxr.resample(hard_cases.scene(np.random.default_rng([SEED, number]), seconds), 32000, RATE)


def coded(wave, form, subtype):
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=form, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def same(table):
    return {(r.a, r.b): r for r in relations(table) if r.by_waveform == "same"}


@pytest.fixture(scope="module")
def planted():
    clips = {f"original/{k}": scene(k) for k in range(8)}
    whole = clips["original/0"]
    clips["copy/lossless"] = whole.copy()
    clips["copy/quiet and inverted"] = -0.1 * clips["original/1"] + 0.05
    clips["copy/excerpt"] = clips["original/2"][4 * RATE + 33 : 7 * RATE + 33]
    clips["copy/mp3"] = coded(clips["original/3"][3 * RATE : 7 * RATE], "MP3", "MPEG_LAYER_III")
    clips["copy/vorbis"] = coded(clips["original/4"], "OGG", "VORBIS")
    clips["copy/16k and back"] = soxr.resample(soxr.resample(clips["original/5"], RATE, 16000), 16000, RATE)
    clips["copy/partial"] = np.concatenate([clips["original/6"][8 * RATE :], scene(99, 8)])
    return Collection(clips)


def test_every_planted_copy_is_found_where_it_is_and_nothing_else(planted):
    found = same(planted.matches())
    expected = {
        "copy/lossless": ("original/0", 0.0, 12.0),
        "copy/quiet and inverted": ("original/1", 0.0, 12.0),
        "copy/excerpt": ("original/2", -(4 + 33 / RATE), 3.0),
        "copy/mp3": ("original/3", -3.0, 4.0),
        "copy/vorbis": ("original/4", 0.0, 12.0),
        "copy/16k and back": ("original/5", 0.0, 12.0),
        "copy/partial": ("original/6", -8.0, 4.0),
    }
    assert set(found) == {(a, b) for a, (b, _, _) in expected.items()}
    for copy, (original, offset, overlap) in expected.items():
        relation = found[copy, original]
        assert relation.offset_s == pytest.approx(offset, abs=0.02), copy
        assert relation.overlap_s == pytest.approx(overlap, abs=0.5), copy


def test_the_order_of_rows_does_not_matter(planted):
    rng = np.random.default_rng(0)
    table = planted.matches()
    shuffled = Collection(planted.clips)
    for name in ("catalogue", "facts", "fingerprints"):
        rows = getattr(planted, name)
        setattr(shuffled, name, rows.take(rng.permutation(rows.num_rows)))
    assert shuffled.matches().equals(table)


def test_spilling_to_disk_and_spreading_change_nothing(planted, tmp_path):
    small = MatchSettings(join=JoinSettings(memory_bytes=100_000, partitions=7, scratch=str(tmp_path)))
    (tmp_path / "earshot-join/postings/00000").mkdir(parents=True)
    (tmp_path / "earshot-join/postings/00000/000000.bin").write_bytes(b"left by a killed build")

    def backwards(function, items):
        items = [pickle.loads(pickle.dumps(item)) for item in items]  # as they travel to a worker
        return [function(item) for item in reversed(items)]

    assert planted.matches(settings=small, spread=backwards).equals(planted.matches())
    assert not list(tmp_path.iterdir())


def test_comparing_is_counted_in_pairs_to_the_end(planted):
    begun = []

    def begin(what, total, unit):
        begun.append(Progress(what, total, unit, quiet=True))
        return begun[-1]

    assert planted.matches(begin=begin).equals(planted.matches())
    assert [one.unit for one in begun] == ["clips", "parts", "parts", "pairs", "stretches"]
    assert all(one.done == one.total > 0 for one in begun)


def test_adding_clips_to_a_known_collection_finds_what_a_whole_run_finds(planted):
    old = {c: w for c, w in planted.clips.items() if c not in ("copy/mp3", "original/1", "copy/lossless")}
    before = Collection(old).matches()
    assert planted.matches(known=before, old=set(old)).equals(planted.matches())


def test_clips_that_only_identifiers_connect_are_compared_too():
    whole = scene(1)
    clips = {"a": whole, "b": whole[5 * RATE : 5 * RATE + 4000], "c": scene(2)}
    published = [
        {"a": "a", "b": b, "method": "identity", "offset_s": None, "overlap_s": None, "outcome": "undecided"}
        for b in ("b", "c")
    ]
    table = Collection(clips).matches(pa.Table.from_pylist(published, MATCHES))
    assert [r["method"] for r in table.to_pylist()].count("identity") == 2
    found = {(r.a, r.b): r for r in relations(table)}
    assert found["a", "b"].by_waveform == "same" and found["a", "b"].offset_s == pytest.approx(5, abs=0.02)
    assert found["a", "c"].by_waveform == "different"


def test_equal_samples_are_the_same_but_silent_clips_match_no_other():
    hum = hard_cases.draw("hum", np.random.default_rng(0), 3)
    clips = {"a": hum, "b": hum, "s": np.zeros(RATE, np.float32), "t": np.zeros(RATE, np.float32)}
    clips |= {"u": np.full(RATE, 0.4, np.float32), "v": np.full(RATE, 0.4, np.float32)}
    hashes = dict.fromkeys("ab", "hum") | dict.fromkeys("st", "zero") | dict.fromkeys("uv", "offset")
    assert set(same(Collection(clips, hashes).matches())) == {("a", "b")}


def test_one_effect_in_many_clips_is_bounded_and_still_leads_to_the_protected_one():
    effect = scene(0, 2)
    clips = {f"clip/{k:03d}": np.concatenate([scene(100 + k, 1), effect, scene(300 + k, 1)]) for k in range(20)}
    settings = MatchSettings(join=JoinSettings(common=6, representatives=3, partners=4))
    found = same(Collection(clips, protected={"clip/017"}).matches(settings=settings))
    assert len(found) <= 20 * 4
    for clip in clips:
        if clip != "clip/017":
            assert tuple(sorted((clip, "clip/017"))) in found


def test_a_loop_inside_one_recording_matches_no_other():
    loop = np.tile(scene(0, 1), 20)
    clips = {"loop": loop, "other": np.tile(scene(1, 1), 20), "scene": scene(2)}
    assert not same(Collection(clips).matches())


@pytest.mark.parametrize("kind", hard_cases.KINDS)
def test_strangers_never_merge(kind):
    rng = np.random.default_rng([SEED, *map(ord, kind)])
    for _ in range(4):
        a, b = (hard_cases.draw(kind, rng, rng.uniform(2, 3)) for _ in range(2))
        assert align_and_compare(a, b, -4, 4).outcome != "same"


def _merged(kind):
    """How many of a thousand pairs of strangers, among a hundred of them, are taken for the same sound."""
    rng = np.random.default_rng([SEED + 1, *map(ord, kind)])
    strangers = [hard_cases.draw(kind, rng, rng.uniform(2, 5)) for _ in range(100)]
    pairs = list(combinations(strangers, 2))
    chosen = rng.choice(len(pairs), 1000, replace=False)
    return sum(align_and_compare(*pairs[number], -6, 6).outcome == "same" for number in chosen)


@pytest.mark.slow
def test_of_a_thousand_pairs_of_strangers_none_merges():
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        merged = dict(zip(hard_cases.KINDS, pool.map(_merged, hard_cases.KINDS), strict=True))
    assert merged == dict.fromkeys(hard_cases.KINDS, 0)


def residuals(table):
    return {(row["a"], row["b"]): row for row in table.to_pylist() if row["method"] == "residual"}


def with_bang(wave, at_s, level=0.5):
    """The wave with half a second of other noise mixed in, at twice its own level by default."""
    bang = np.random.default_rng(3).standard_normal(RATE // 2) * wave.std() * 4 * level
    mix = wave.copy()
    mix[round(at_s * RATE) : round(at_s * RATE) + len(bang)] += bang.astype(np.float32)
    return mix / max(1.0, np.abs(mix).max())


def test_of_a_copy_and_a_mix_only_the_copy_is_explained_and_the_place_is_told():
    whole = scene(20)
    clips = {"a": whole, "copy": coded(whole, "OGG", "VORBIS"), "mix": with_bang(whole, 7)}
    found = residuals(Collection(clips).matches())
    assert found["a", "copy"]["outcome"] == "same" and found["a", "copy"]["difference"] is None
    for pair in (("a", "mix"), ("copy", "mix")):
        row = found[pair]
        assert row["outcome"] == "different" and row["difference"]["clip_id"] == "mix"
        assert row["difference"]["start_s"] == pytest.approx(7, abs=0.2)


def test_an_excerpt_is_compared_with_its_part_of_the_long_clip_alone():
    """What the long clip holds beside the excerpt is no difference; a sound mixed into the excerpt's part is one."""
    excerpt = scene(21, 4)
    around = [scene(22, 5), scene(23, 35)]
    clips = {
        "excerpt": excerpt,
        "long": np.concatenate([around[0], 0.5 * excerpt, around[1]]),
        "long with bang": np.concatenate([around[1], with_bang(0.5 * excerpt, 1), around[0]]),
    }
    found = residuals(Collection(clips).matches())
    assert found["excerpt", "long"]["outcome"] == "same"
    assert found["excerpt", "long with bang"]["outcome"] == "different"
    assert found["excerpt", "long with bang"]["difference"]["clip_id"] == "long with bang"
    assert found["excerpt", "long with bang"]["difference"]["start_s"] == pytest.approx(36, abs=0.2)


def test_what_a_clip_holds_before_its_copy_begins_must_be_explained_too():
    whole = 0.2 * scene(24)
    loud = with_bang(whole, 0, level=2)
    late = slice(RATE // 2, None)
    found = residuals(Collection({"late": whole[late], "loud": loud, "whole": whole}).matches())
    assert found["late", "whole"]["outcome"] == "same"
    assert found["late", "loud"]["difference"]["clip_id"] == "loud"
    assert found["late", "loud"]["difference"]["start_s"] < 0.5


def test_leaks_need_no_explanation():
    whole = scene(25)
    assert not residuals(Collection({"a": whole, "mix": with_bang(whole, 3)}, protected={"a"}).matches())


def test_all_of_a_long_overlap_is_explained():
    """Comparing long waves samples them; a bang between the samples is found all the same."""
    whole = np.concatenate([scene(200 + k, 10) for k in range(7)])
    settings = MatchSettings(stretch_s=10.0, stretches=2)
    row = residuals(Collection({"a": whole, "mix": with_bang(whole, 33)}).matches(settings=settings))["a", "mix"]
    assert row["difference"]["start_s"] == pytest.approx(33, abs=0.2)


def test_matches_of_a_build_that_explained_nothing_are_explained_now():
    clips = {"a": scene(26), "b": 0.5 * scene(26)}
    full = Collection(clips).matches()
    former = full.filter(pc.not_equal(full["method"], "residual")).drop_columns(["difference"])
    assert Collection(clips).matches(known=former, old=set(clips)).equals(full)


@pytest.mark.slow
def test_different_real_recordings_are_not_merged(shared_data):
    clips = {}
    for path in sorted((shared_data / "audio/cdda_cc_sounds").rglob("*.ogg"))[:120]:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        clips[path.name] = soxr.resample(wave.mean(axis=1), rate, RATE)
    found = same(Collection(clips).matches())
    for a, b in combinations(sorted(clips), 2):
        if (a, b) in found:
            first, second = clips[a], clips[b]
            assert align_and_compare(first, second, -len(second) / RATE, len(first) / RATE).correlation > 0.55
