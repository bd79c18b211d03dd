"""Who writes annotations: rules over what is known of a clip, or a language model that may also hear it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from training.curation.annotations import Annotation

if TYPE_CHECKING:  # seconds of transformers, which rules do without
    from training.models.multimodal import language, listening

ASKED = {
    "long": "Describe the sounds in one detailed sentence.",
    "short": "Describe the sounds in at most eight words.",
    "tags": "List the sound events as short tags, separated by commas.",
}


@dataclass(frozen=True)
class KnownClip:
    """What is known of a clip.

    Attributes:
        clip_id: its name.
        captions: what was written for it, without labels.
        labels: its labels.
        keywords: what its publisher tagged it with.
    """

    clip_id: str
    captions: list[str]
    labels: list[str]
    keywords: list[str]


class Annotator(Protocol):
    """Writes annotations of clips."""

    @property
    def hears(self) -> Any:
        """The audio encoder whose input the loader makes; None: no sound is read."""
        ...

    def annotate(self, clips: Sequence[KnownClip], features: Any, frames: Any) -> list[Annotation]:
        """Annotations of clips, with ``features [b, S, F, T]`` and ``frames [b, S]`` of their sound, or None."""
        ...


@dataclass(frozen=True)
class Rules:
    """Writes annotations without a model: all captions as one text, the shortest caption, and labels with keywords."""

    @property
    def hears(self) -> Any:
        return None

    def annotate(self, clips: Sequence[KnownClip], features: Any, frames: Any) -> list[Annotation]:
        found = []
        for clip in clips:
            texts = [text.rstrip(". ") for text in dict.fromkeys(clip.captions)]
            long = ". ".join(texts) if len(texts) > 1 else None
            short = min(texts, key=len) if texts else None
            found.append(Annotation(clip.clip_id, long, short, (*clip.labels, *clip.keywords)))
        return found


@dataclass(frozen=True)
class Model:
    """A language model of transformers by name or folder; one with an audio tower also hears the clip.

    Attributes:
        source: as for the encoders `multimodal`.
        tokens: the most tokens of an answer.
    """

    source: str
    tokens: int = 96

    @property
    def hears(self) -> Any:
        return opened(self.source)[1]

    @torch.inference_mode()
    def annotate(self, clips: Sequence[KnownClip], features: Any, frames: Any) -> list[Annotation]:
        model, audio = opened(self.source)
        sound = None
        if audio is not None:
            device = next(model.parameters()).device
            tokens, heard = audio.listen(features[:, 0].to(device), frames[:, 0].clamp(min=1).to(device))
            sound = (tokens, heard)
        long, short, tags = (
            [
                " ".join(text.split())
                for text in answers(model, [_question(kind, clip) for clip in clips], sound, self.tokens)
            ]
            for kind in ASKED
        )
        return [
            Annotation(clip.clip_id, one, two, tuple(tag for tag in three.split(",") if tag.strip()))
            for clip, one, two, three in zip(clips, long, short, tags, strict=True)
        ]


def answers(
    model: language.LanguageModel, questions: list[str], sound: Any, tokens: int, seed: int | None = None
) -> list[str]:
    """A model's answers, unfiltered.

    Args:
        model: the model.
        questions: what it is asked, one for each answer.
        sound: ``(vectors [b, n, d], mask [b, n])`` of what it hears before the questions; None: nothing.
        tokens: the most tokens of an answer.
        seed: draw the answers from the model's distribution; None: the most probable ones, token by token.
    """
    from training.models.multimodal.listening import packed
    from training.models.multimodal.prompts import END, sound_marks

    before, after = model.chat
    start, end = sound_marks(model.tokenizer.plain) if sound is not None else ("", "")
    pieces = [_embedded(model, [before + start] * len(questions))]
    pieces += [] if sound is None else [sound]
    pieces.append(_embedded(model, [f"{end}{question}{after}" for question in questions]))
    vectors, mask = packed(*pieces)
    order = mask.byte().argsort(dim=1, stable=True)  # padding comes first where a model writes on
    plain = model.tokenizer.plain
    stops = {plain.eos_token_id, plain.get_vocab().get(END)} - {None}
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        written = model.net.generate(
            inputs_embeds=vectors.gather(1, order[..., None].expand_as(vectors)),
            attention_mask=mask.gather(1, order).long(),
            max_new_tokens=tokens,
            do_sample=seed is not None,
            eos_token_id=sorted(stops),
            pad_token_id=plain.pad_token_id,
        )
    return list(plain.batch_decode(written, skip_special_tokens=True))


def _question(kind: str, clip: KnownClip) -> str:
    known = [*clip.captions, *clip.labels, *clip.keywords]
    return (f"What is known: {'; '.join(known)}\n" if known else "") + ASKED[kind]


def _embedded(model: language.LanguageModel, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    device = next(model.parameters()).device
    found = model.tokenizer.tokens(texts).to(device)
    return model.embed(found["input_ids"]), found["attention_mask"].bool()


@functools.lru_cache(maxsize=1)
def opened(source: str) -> tuple[language.LanguageModel, listening.Listener | None]:
    """The model of a worker process, on its GPU where it has one, and its audio tower where the source has one."""
    import transformers

    from training.models.downloads import only_here
    from training.models.encoders.published import folder_of
    from training.models.multimodal import language, listening
    from training.models.multimodal.towers import PARTS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = language.build(language.Settings(source=source), ())
    folder = folder_of(source)
    found, _ = transformers.PreTrainedConfig.get_config_dict(folder, local_files_only=only_here(folder))
    kind = found.get("model_type")
    audio = None
    if kind in PARTS:
        audio = listening.build(listening.Settings(source=source))
        audio.connect(model)
        audio = audio.eval().to(device)
    return model.eval().to(device), audio
