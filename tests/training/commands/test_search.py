"""``index`` and ``search`` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.training.models.multimodal.test_multimodal import TINY
from tests.training.search.indexes import exported, untrained
from training.cli import main
from training.commands import search
from training.models.hub import load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(untrained([]), tmp_path_factory.mktemp("searched") / "model")


@pytest.fixture(scope="module")
def index(model: Path, build: Path) -> Path:
    folder = model.parent / "index"
    assert main(["index", str(model), "--shards", str(build), "--out", str(folder), "--window", "1"]) == 0
    return folder


def searched(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main(["search", *arguments, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_an_index_is_searched_by_text_by_sound_and_without(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sf.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 3), 16000)
    one = searched([str(index), "a low hum", "--top", "3"], capsys)
    assert len(one["results"]) == 3 and one["texts"] == ["a low hum"]  # type: ignore[arg-type]
    query = ["--text", "a hum", "--sound", str(tmp_path / "a.wav"), "--not", "hiss", "--dataset", "clotho/evaluation"]
    other = searched([str(index), *query], capsys)
    assert {hit["split"] for hit in other["results"]} == {"evaluation"}  # type: ignore[attr-defined]
    assert main(["search", str(index), "a low hum", "--top", "1"]) == 0
    assert "   1. 0." in capsys.readouterr().out


def test_a_description_is_read_together_with_a_sound(
    build: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sf.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 3), 16000)
    exported(untrained(TINY), tmp_path / "model")
    found = ["index", str(tmp_path / "model"), "--shards", str(build), "--out", str(tmp_path / "index")]
    assert main([*found, "--split", "clotho/evaluation"]) == 0
    words = [str(tmp_path / "index"), "in the rain", "--sound", str(tmp_path / "a.wav")]
    apart, together = searched(words, capsys), searched([*words, "--together"], capsys)
    assert together["texts"] == ["in the rain"] and len(together["results"]) == 9  # type: ignore[arg-type]
    assert together["results"] != apart["results"]
    assert main(["search", str(index), *words[1:], "--together"]) == 2
    assert "cannot read a description together with a sound" in capsys.readouterr().err


def test_a_stored_vector_of_a_text_finds_what_the_text_finds(
    index: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "stored.npy", 3 * load(model).encode_texts(["a low hum"])[0][0].numpy())
    by_vector = searched([str(index), "--vector", str(tmp_path / "stored.npy")], capsys)
    by_text = searched([str(index), "a low hum"], capsys)
    scores = [[hit["score"] for hit in found["results"]] for found in (by_vector, by_text)]  # type: ignore[attr-defined]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    for name, wrong in (("short", np.ones(3)), ("words", np.array("hum")), ("zero", np.zeros(16))):
        np.save(tmp_path / f"{name}.npy", wrong)
        assert main(["search", str(index), "--vector", str(tmp_path / f"{name}.npy")]) == 2
        assert f"{name}.npy" in capsys.readouterr().err
    (tmp_path / "words.npy").write_text("no vector")
    assert main(["search", str(index), "--vector", str(tmp_path / "words.npy")]) == 2
    shown = capsys.readouterr().err
    assert "it is no file of numpy.save" in shown and "pickle" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["INDEX"], "nothing to look for"),
        (["INDEX", "hum", "--sound", "absent.wav"], "absent.wav: cannot be read"),
        (["INDEX", "hum", "--together"], "one description and a sound"),
        (["MODEL", "hum"], "earshot index MODEL --shards OUT --out INDEX"),
        (["INDEX", "hum", "--dataset", "freesound"], "it has clotho/development, clotho/evaluation"),
        (["INDEX", "hum", "--model", "absent"], "absent"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_a_remedy(
    arguments: list[str], message: str, index: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"INDEX": str(index), "MODEL": str(model)}
    assert main(["search", *(known.get(word, word) for word in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_index_is_refused(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("index.json", "vectors", "entries"):
        copy = tmp_path / name
        copy.mkdir()
        for path in index.iterdir():
            cut = path.name.startswith(name) and path.is_file()
            (copy / path.name).write_bytes(path.read_bytes()[: -7 if cut else None])
        assert main(["search", str(copy), "hum"]) == 2
        assert str(copy) in capsys.readouterr().err


def test_a_caption_cannot_act_on_the_terminal_or_pretend_to_be_another_hit() -> None:
    hit = {"score": 0.5, "clip_id": "mine/a", "path": None, "start_s": 0.0, "end_s": 61.0}
    hit["captions"] = ["rain\n   2. 0.9\x1b[2J"]
    shown = search.show({"results": [hit], "entries": 1, "seconds": 0.001})
    assert shown.splitlines()[:2] == ["   1. 0.5000  0:00-1:01  mine/a", "      rain\\n   2. 0.9\\x1b[2J"]


def test_a_short_hit_is_placed_in_tenths_of_seconds() -> None:
    places = [(59.97, 60.07), (7201.23, 7201.33), (0.0, 10.0)]
    hits = [{"score": 0.5, "clip_id": "a", "path": None, "captions": [], "start_s": s, "end_s": e} for s, e in places]
    lines = search.show({"results": hits, "entries": 3, "seconds": 0.001}).splitlines()
    assert [line.split()[2] for line in lines[:3]] == ["1:00.0-1:00.1", "2:00:01.2-2:00:01.3", "0:00-0:10"]
