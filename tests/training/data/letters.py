"""A tokenizer for tests."""

from __future__ import annotations

from typing import Any

import torch


class Letters:
    """A tokenizer whose tokens are letters, with the interface of transformers' tokenizers."""

    def __call__(self, texts: list[str], max_length: int, **options: Any) -> dict[str, torch.Tensor]:
        cut = [text[:max_length] for text in texts]
        ids = torch.zeros(len(cut), max(map(len, cut)), dtype=torch.int64)
        for number, text in enumerate(cut):
            ids[number, : len(text)] = torch.tensor([ord(letter) for letter in text])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}
