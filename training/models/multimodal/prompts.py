"""Prompts that ask a language model to sum up a sound, a sentence, or both together, in one word.

The wording is that of AuroLA (arXiv 2602.18010) and its published code, whose training data end in ``<emb>.`` as the
model's answer.  Its embedding is the hidden state just before ``<emb>``.  A causal model does not see what follows, so
the answer is left out here, and the embedding is the hidden state at the prompt's last token.

Turns of a chat are marked as in ChatML where the vocabulary has the marks.  The templates that tokenizers bring along
are not used, because they are programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError

OF_AUDIO = "\nSummarize above audio in one word: "
OF_TEXT = "\nSummarize above sentence in one word: "
OF_BOTH = "\nSummarize above audio and sentence in one word: "
START, END = "<|im_start|>", "<|im_end|>"
# The marks of Qwen2.5-Omni and Qwen2-Audio, and of Qwen3-Omni, around the tokens of a sound.
SOUND_MARKS = (("<|audio_bos|>", "<|audio_eos|>"), ("<|audio_start|>", "<|audio_end|>"))


def chat(tokenizer: Any, system: str | None) -> tuple[str, str]:
    """What stands before and after the words of a user, up to where the model's answer begins.

    Args:
        tokenizer: the tokenizer of the model.
        system: what the system says first; None: nothing.
    """
    known = tokenizer.get_vocab()
    if START not in known or END not in known:
        return "" if system is None else f"{system}\n", ""
    first = "" if system is None else f"{START}system\n{system}{END}\n"
    return f"{first}{START}user\n", f"{END}\n{START}assistant\n"


def sound_marks(tokenizer: Any) -> tuple[str, str]:
    """The tokens that the model expects before and after a sound, as text."""
    known = tokenizer.get_vocab()
    return next((marks for marks in SOUND_MARKS if marks[0] in known and marks[1] in known), ("", ""))


class PromptedTokenizer:
    """A tokenizer that puts a prompt around every text; only the text is cut.

    Args:
        tokenizer: a fast tokenizer of transformers.
        before, after: the prompt.
    """

    def __init__(self, tokenizer: Any, before: str, after: str) -> None:
        if not tokenizer.is_fast:
            remedy = "name a folder with tokenizer.json"
            raise InputError("the tokenizer does not say where in a text its tokens are", remedy=remedy)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.plain, self.before, self.after = tokenizer, before, after

    def __call__(self, texts: Sequence[str], *, max_length: int, **_: Any) -> Any:
        """Tokens and mask of prompted texts, padded on the right; a text has at most ``max_length`` tokens."""
        return self.tokens([self.before + text + self.after for text in self.cut(texts, max_length)])

    def cut(self, texts: Sequence[str], longest: int) -> list[str]:
        """Texts without what follows their first ``longest`` tokens."""
        found = self.plain(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [
            text if len(offsets) <= longest else text[: offsets[longest - 1][1]]
            for text, offsets in zip(texts, found, strict=True)
        ]

    def tokens(self, prompts: Sequence[str]) -> Any:
        """Tokens and mask of whole prompts, padded on the right."""
        return self.plain(
            list(prompts), add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer without its prompt, which the recipe has."""
        self.plain.save_pretrained(folder)

    def get_vocab(self) -> dict[str, int]:
        """Every token and its number."""
        return dict(self.plain.get_vocab())
