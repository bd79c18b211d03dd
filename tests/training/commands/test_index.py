"""From a folder of sounds without a table to a search, by the commands that the README shows first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from ray_jobs.earshot import main
from sharding.common.errors import InputError
from tests.training.models.published.test_clap import save_clap
from tests.training.search.indexes import exported, untrained
from training.search.store import SoundIndex


@pytest.mark.slow
def test_a_folder_of_sounds_is_searched_with_a_published_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    for name in ("animals/big_dog 01", "animals/cat", "rain on tin", "0007"):
        path = tmp_path / "sounds" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, 0.3 * draw.standard_normal(96000), 32000)
    save_clap(tmp_path / "clap")
    out, index = str(tmp_path / "out"), str(tmp_path / "index")
    assert main(["build", "--source", f"mine={tmp_path / 'sounds'}", "--out", out]) == 0
    assert main(["index", str(tmp_path / "clap"), "--shards", out, "--out", index]) == 0
    capsys.readouterr()
    assert main(["search", index, "a dog", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert {(hit["path"], *hit["captions"]) for hit in hits} == {
        (str(tmp_path / "sounds/animals/big_dog 01.wav"), "animals big dog"),
        (str(tmp_path / "sounds/animals/cat.wav"), "animals cat"),
        (str(tmp_path / "sounds/rain on tin.wav"), "rain on tin"),
        (str(tmp_path / "sounds/0007.wav"), "0007"),
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--window", "0"], "at least 0.1 s"),
        (["--window", "90"], "the model hears"),
        (["--split", "x"], "no such split"),
    ],
)
def test_what_cannot_be_indexed_is_refused_before_anything_is_encoded(
    more: list[str], message: str, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported(untrained([]), tmp_path / "model")
    arguments = ["index", str(model), "--shards", str(build), "--out", str(tmp_path / "index"), *more]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert main(["index", str(model), "--shards", str(build), "--out", str(model)]) == 2
    assert main(["index", str(model), "--shards", str(build), "--out", "s3://bucket/index"]) == 2
    assert "not in an object store" in capsys.readouterr().err
    with pytest.raises(InputError, match="no finished index"):
        SoundIndex.open(tmp_path / "index")
