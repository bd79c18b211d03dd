"""A re-ranker over the two encoders of a multimodal model: pairs in, the logits of Yes and No out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.models.multimodal.language import LanguageModel, last_of
from training.models.multimodal.listening import Listener, packed
from training.reranking.prompts import answers, around_sound


@dataclass(frozen=True)
class Sounds:
    """Sounds as the language model reads them.

    Attributes:
        tokens: ``[n, A, d]``, padded anywhere.
        heard: ``[n, A]`` bool, True at tokens of sound.
    """

    tokens: Tensor
    heard: Tensor

    def take(self, rows: Any) -> Sounds:
        """A subset of the sounds."""
        return Sounds(self.tokens[rows], self.heard[rows])


class RerankModel(nn.Module):
    """The tower and the language model of a multimodal retriever, asked for yes or no.

    Its parameters have the names of the retriever, so `init_from` takes them over.

    Args:
        audio: the audio encoder, connected to the text encoder.
        text: the language model.
    """

    def __init__(self, audio: Listener, text: LanguageModel) -> None:
        super().__init__()
        self.audio, self.text = audio, text
        self.answers = answers(text.tokenizer.plain)

    def listen(self, features: Tensor, frames: Tensor) -> Sounds:
        """The sounds of ``features [b, S, F, T]`` with ``frames [b, S]``: the tokens of all segments in a row."""
        count, segments = frames.shape
        present = frames > 0
        tokens, heard = self.audio.listen(features[present], frames[present])
        whole = tokens.new_zeros(count, segments, *tokens.shape[1:])
        where = heard.new_zeros(count, segments, heard.shape[1])
        whole[present], where[present] = tokens, heard
        return Sounds(whole.flatten(1, 2), where.flatten(1, 2))

    def prompts(self, texts: Sequence[str], by_audio: Sequence[bool]) -> tuple[Any, Any]:
        """Tokens and masks of what stands before and after the sounds, for captions cut to their length."""
        pieces = [around_sound(self.text, text, way) for text, way in zip(texts, by_audio, strict=True)]
        before, after = zip(*pieces, strict=True)
        return self.text.tokenizer.tokens(before), self.text.tokenizer.tokens(after)

    def forward(self, sounds: Sounds, before: Tensor, before_mask: Tensor, after: Tensor, after_mask: Tensor) -> Tensor:
        """The logits of all tokens for the answer, ``[n, vocabulary]``.

        Args:
            sounds: n sounds.
            before, before_mask: ``[n, N]``, the tokens before each sound.
            after, after_mask: ``[n, M]``, the tokens after each sound.
        """
        embedded, mask = packed(
            (self.text.embed(before), before_mask),
            (sounds.tokens, sounds.heard),
            (self.text.embed(after), after_mask),
        )
        return self.logits(last_of(self.text.hidden(embedded, mask), mask))

    def logits(self, states: Tensor) -> Tensor:
        """``[n, vocabulary]`` from the last hidden states ``[n, d]``."""
        found: Tensor = self.text.net.get_output_embeddings()(states)
        return found

    def probability(self, logits: Tensor) -> Tensor:
        """The probability of Yes against No alone, ``[n]``."""
        return logits[:, self.answers].float().softmax(1)[:, 0]


@dataclass(frozen=True)
class Reranker:
    """Scores the candidates of one query at a time, behind a prefix that is read once.

    Attributes:
        model: the re-ranker.
        batch: candidates that are read at once.
    """

    model: RerankModel
    batch: int = 32

    @torch.inference_mode()
    def captions(self, sound: Sounds, texts: Sequence[str]) -> Tensor:
        """The probability that each caption matches one sound, ``[texts]``: the sound is the query."""
        language, device = self.model.text, sound.tokens.device
        before, after = zip(*(around_sound(language, text, True) for text in texts), strict=True)
        first = language.tokenizer.tokens(before[:1]).to(device)
        prefix, _ = packed(
            (language.embed(first["input_ids"]), first["attention_mask"].bool()), (sound.tokens, sound.heard)
        )
        found = language.tokenizer.tokens(after).to(device)
        endings = language.embed(found["input_ids"]), found["attention_mask"].bool()
        return self._behind(prefix, *endings)

    @torch.inference_mode()
    def sounds(self, text: str, sounds: Sounds) -> Tensor:
        """The probability that each sound matches one caption, ``[n]``: the caption is the query."""
        language, device, count = self.model.text, sounds.tokens.device, len(sounds.heard)
        before, after = around_sound(language, text, False)
        start, end = (language.tokenizer.tokens([piece]).to(device) for piece in (before, after))
        ending = language.embed(end["input_ids"]).expand(count, -1, -1)
        mask = end["attention_mask"].bool().expand(count, -1)
        return self._behind(language.embed(start["input_ids"]), *packed((sounds.tokens, sounds.heard), (ending, mask)))

    def _behind(self, prefix: Tensor, endings: Tensor, mask: Tensor) -> Tensor:
        """The probability of Yes ``[n]`` after ``prefix [1, P, d]`` with each of ``endings [n, L, d]``."""
        net = self.model.text.net.model
        cache = net(inputs_embeds=prefix, use_cache=True).past_key_values
        found = []
        for some in torch.arange(len(mask)).split(self.batch):
            own = copy.deepcopy(cache)
            own.batch_repeat_interleave(len(some))
            part = mask[some][:, : int(mask[some].sum(1).max())]
            seen = torch.cat((part.new_ones(len(some), prefix.shape[1]), part), 1)
            states = net(
                inputs_embeds=endings[some][:, : part.shape[1]],
                attention_mask=seen.long(),
                past_key_values=own,
                use_cache=True,
            ).last_hidden_state
            found.append(self.model.probability(self.model.logits(last_of(states, part))))
        return torch.cat(found)
