from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from training.models.encoders.text.tokenizer import train_tokenizer

CAPTIONS = ["a dog barks", "rain falls on a tin roof", "a dog barks"]


def test_equal_captions_give_equal_tokenizers_in_any_order() -> None:
    first, second = train_tokenizer(CAPTIONS, 300), train_tokenizer(CAPTIONS[::-1], 300)
    assert first.get_vocab() == second.get_vocab()


def test_any_text_is_read_without_unknown_tokens_and_written_back() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 300)
    tokens = tokenizer("é 鳥 sings")["input_ids"]
    assert tokenizer.unk_token_id not in tokens
    assert (tokens[0], tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == "é 鳥 sings"


def test_a_saved_tokenizer_is_read_back(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CAPTIONS, 300)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(CAPTIONS)["input_ids"] == tokenizer(CAPTIONS)["input_ids"]
    assert again.pad_token_id == tokenizer.pad_token_id
