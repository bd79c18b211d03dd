"""The prompts of a re-ranker: a query and a candidate, one of them a sound, and the question whether they match.

The wording is that of AuroLA's published code, without the row of spaces that a line break leaves in it.
"""

from __future__ import annotations

from typing import Any

from sharding.common.errors import InputError
from training.models.multimodal.language import LanguageModel
from training.models.multimodal.prompts import sound_marks

TASK = (
    "I will provide you with a query and a candidate. Please evaluate whether the candidate matches the query. "
    "If it does, respond with 'Yes'; if it doesn't, respond with 'No'."
)
FOR_CAPTION = "Find a caption describing the sound events in the given audio."
FOR_AUDIO = "Find an audio containing the sound events in the following caption: "


def around_sound(language: LanguageModel, text: str, by_audio: bool) -> tuple[str, str]:
    """What stands before and after the tokens of the sound.

    Args:
        language: the model that reads the prompt.
        text: a caption, already cut to the recipe's length.
        by_audio: whether the sound is the query and the caption the candidate, or the other way round.
    """
    before, after = language.chat
    start, end = sound_marks(language.tokenizer.plain)
    if by_audio:
        return f"{before}{TASK}Query:{start}", f"{end}{FOR_CAPTION}Candidate:{text}{after}"
    return f"{before}{TASK}Query:{FOR_AUDIO}{text}Candidate:{start}", f"{end}{after}"


def answers(tokenizer: Any) -> tuple[int, int]:
    """The tokens that begin the answers Yes and No, and differ.

    Raises:
        InputError: the tokenizer spells both alike.
    """
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("Yes", "No"))
    for one, other in zip(yes, no, strict=False):
        if one != other:
            return one, other
    raise InputError("the tokenizer does not tell Yes from No", remedy="name the tokenizer of a language model")
