"""A user's own encoder, one file outside of Earshot, through the command line; the files are the documentation's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharding.common.errors import InputError
from tests.training.small_runs import REPOSITORY, TREE, write_sounds
from training import cli
from training.config.loading import parse_recipe
from training.models.encoders import AUDIO_ENCODERS, encoder_module

TEXT_ENCODER = '''
from dataclasses import dataclass
from torch import nn
from training.models.encoders import TextEncoder
from training.models.encoders.text.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Settings:
    encoder: str
    width: int = 16
    tokenizer: str | None = None


class Bag(TextEncoder):
    """A table of words."""

    pooling = "mean"
    max_tokens = None

    def __init__(self, settings, captions):
        super().__init__()
        if settings.tokenizer is None:
            self.tokenizer = train_tokenizer(captions, 300)
        else:
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer)
        self.dim, self.table = settings.width, nn.Embedding(300, settings.width)

    def blocks(self):
        return []

    def forward(self, tokens, token_mask):
        return self.table(tokens)
'''


def documented() -> str:
    """The example of docs/METHODS.md."""
    found = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs/METHODS.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_a_users_own_encoder_trains_resumes_exports_and_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path / "build")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/hearing.py").write_text(documented())
    (tmp_path / "mine/reading.py").write_text(TEXT_ENCODER)
    tree: dict[str, Any] = json.loads(json.dumps(TREE))
    tree["audio"] = {"encoder": "hearing.py:Convolutional", "width": 12, "depth": 3}
    tree["text"] = {"encoder": "reading.py:Bag"}
    (tmp_path / "mine/recipe.yaml").write_text(yaml.safe_dump(tree))

    def command(*words: str) -> dict[str, Any]:
        assert cli.main([*words, "--shards", str(tmp_path / "build"), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    fit = ["fit", str(tmp_path / "mine/recipe.yaml"), "--run", str(tmp_path / "run"), "--set", "checkpoint.every=2"]
    assert command(*fit, "--set", "optimizer.steps=3")["steps"] == 3
    monkeypatch.chdir(tmp_path)  # once the run has started, the file is found from any folder
    assert command("fit", str(tmp_path / "run/recipe.yaml"), "--run", str(tmp_path / "run"))["resumed_from"] == 3
    assert command("order", str(tmp_path / "run/recipe.yaml"))["samples"]
    shutil.move(tmp_path / "mine", tmp_path / "moved")  # the contents of the files count, and not their place
    fit[1] = str(tmp_path / "moved/recipe.yaml")
    assert command(*fit, "--set", "optimizer.steps=3")["resumed_from"] == 3
    newest = max((tmp_path / "run/checkpoints").iterdir())
    text = (tmp_path / "moved/hearing.py").read_text()
    (tmp_path / "moved/hearing.py").write_text(text + "\n# another model, perhaps\n")
    assert cli.main([*fit, "--set", "optimizer.steps=3", "--shards", str(tmp_path / "build")]) == 2
    assert "audio.encoder: 'Convolutional of a file" in capsys.readouterr().err
    assert command("evaluate", str(newest), "--split", "clotho/evaluation", "--trust-code")["clips"]
    measured = command("evaluate", str(tmp_path / "run/export"), "--split", "clotho/evaluation", "--trust-code")
    shutil.rmtree(tmp_path / "moved")  # the export has everything
    shutil.move(tmp_path / "run/export", tmp_path / "elsewhere")
    again = command("evaluate", str(tmp_path / "elsewhere"), "--split", "clotho/evaluation", "--trust-code")
    assert again["text_to_audio"] == measured["text_to_audio"]
    index = str(tmp_path / "index")
    command("index", str(tmp_path / "elsewhere"), "--out", index, "--trust-code")
    assert cli.main(["search", index, "a hiss", "--top", "5", "--trust-code", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["results"]) == 5


@pytest.mark.parametrize(
    "layer", ["nn.MultiheadAttention(8, 2, dropout=0.1)", "nn.Dropout1d(0.1)", "nn.GRU(8, 8, 2, dropout=0.1)"]
)
def test_dropout_that_cannot_be_drawn_for_each_sample_is_refused(layer: str, tmp_path: Path) -> None:
    def built(text: str) -> Any:
        (tmp_path / "mine.py").write_text(text)
        made = encoder_module(AUDIO_ENCODERS, f"{tmp_path / 'mine.py'}:Convolutional")
        return made.build(made.Settings("mine"))

    start = "super().__init__()\n"
    assert start in documented()
    with pytest.raises(InputError, match="not drawn for each sample"):
        built(documented().replace(start, f"{start}        self.more = {layer}\n"))
    built(documented().replace(start, f"{start}        self.more = {layer.replace('0.1', '0.0')}\n"))


def test_a_batch_norm_is_refused_unless_it_is_kept_in_evaluation(tmp_path: Path) -> None:
    def built(more: str) -> Any:
        start = "super().__init__()\n"
        (tmp_path / "mine.py").write_text(documented().replace(start, f"{start}        self.more = {more}\n"))
        made = encoder_module(AUDIO_ENCODERS, f"{tmp_path / 'mine.py'}:Convolutional")
        return made.build(made.Settings("mine"))

    with pytest.raises(InputError, match="a rank or a chunk"):
        built("nn.BatchNorm2d(4)")
    built("type('Frozen', (nn.BatchNorm2d,), {'train': lambda self, mode=True: nn.BatchNorm2d.train(self, False)})(4)")


def test_files_without_an_encoder_are_refused(tmp_path: Path) -> None:
    def module(name: str, text: str) -> Any:
        (tmp_path / "mine.py").write_text(text)
        return encoder_module(AUDIO_ENCODERS, f"{tmp_path / 'mine.py'}:{name}")

    good = documented()
    with pytest.raises(InputError, match="Convolutional"):
        module("Convolution", good)
    with pytest.raises(InputError, match="Settings"):
        module("Convolutional", good.replace("class Settings:\n    encoder: str", "class Settings:\n    name: str"))
    with pytest.raises(InputError, match="cannot be run: SyntaxError"):
        module("Convolutional", "def :")
    with pytest.raises(InputError, match=r"does not define .*segment_s"):
        made = module(
            "Convolutional", good.replace("segment_s, hop_s, max_s = 10.0, 10.0, 30.0", "hop_s = max_s = 10.0")
        )
        made.build(made.Settings("mine"))
    with pytest.raises(InputError, match="abstract"):
        made = module("Convolutional", good.replace("def blocks", "def layers"))
        made.build(made.Settings("mine"))
    tree = TREE | {"audio": {"encoder": "nowhere.py:Convolutional"}}
    with pytest.raises(InputError, match="no such file of an encoder"):
        parse_recipe(tree, tmp_path / "recipe.yaml")
    tree = TREE | {"audio": {"encoder": f"{tmp_path / 'mine.py'}:Convolutional", "widht": 3}}
    (tmp_path / "mine.py").write_text(good)
    with pytest.raises(InputError, match="did you mean 'width'"):
        parse_recipe(tree, tmp_path / "recipe.yaml")
