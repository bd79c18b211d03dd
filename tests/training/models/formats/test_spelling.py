"""Saved tokenizers spell texts as the recipe says, whatever class they were of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, PreTrainedTokenizerFast

from tests.training.small_runs import small_recipe
from training.data.captions import normalise, tokenise
from training.models.encoders.published import load_tokenizer
from training.models.formats.proof import TEXTS
from training.models.formats.spelling import spelling_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz,.-!ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DATA = small_recipe().data


def tokenizers() -> dict[str, Any]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "rain", *LETTERS, *(f"##{one}" for one in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    general = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    general.normalizer = normalizers.NFKC()
    general.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    general.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return {
        "bert": BertTokenizer(vocab=vocabulary),
        "general": PreTrainedTokenizerFast(tokenizer_object=general, **names),
    }


@pytest.mark.parametrize("kind", ["bert", "general"])
def test_a_saved_tokenizer_reads_what_the_model_reads(kind: str, tmp_path: Path) -> None:
    own = tokenizers()[kind]
    tokenise(own, ["a dog barks"], DATA)  # leaves its truncation and padding behind
    spelling_tokenizer(own, DATA).save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    for text in TEXTS:
        expected = tokenise(own, [normalise(text, DATA)], DATA)[0][0].tolist()
        assert loaded([text], truncation=True)["input_ids"][0] == expected


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]) | st.sampled_from("\t\n äéßÀ"), max_size=40))
def test_any_text_of_latin_letters_is_spelled_alike(text: str) -> None:
    own = tokenizers()["general"]
    expected = tokenise(own, [normalise(text, DATA)], DATA)[0][0].tolist()
    assert spelling_tokenizer(own, DATA)([text], truncation=True)["input_ids"][0] == expected
