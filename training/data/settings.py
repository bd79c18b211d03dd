"""The data section of a recipe: frozen dataclasses that check their own values when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from training.config.checks import require

Kind = Literal["human", "machine", "label", "rewritten"]
KINDS: tuple[Kind, ...] = ("human", "machine", "label")  # those of shards; `rewrite` writes others beside them


@dataclass(frozen=True)
class MixtureItem:
    """One part of the training mixture: the clips of a split that have captions of some kinds.

    An epoch draws ``choose`` clips of it, or else ``min(cap, repeat × clips)``.  With ``pairs: captions`` it draws
    pairs of a clip and one of its captions instead, so that every caption occurs in an epoch, as in the published
    baselines.  The next epoch goes on where the last one stopped, so ``repeat: 0.5`` draws every clip once in two
    epochs.  To give kinds of captions different weights, list the split once for each kind.
    """

    split: str  # dataset/split, or a dataset, which stands for all of its splits; "*": every split not held out
    captions: tuple[Kind, ...] = KINDS
    pairs: Literal["clips", "captions"] = "clips"  # what a draw is: a clip, or a caption with its clip
    weight: float | None = None  # this item's share of an epoch's draws, relative to the weights of the others
    repeat: float = 1.0  # passes over the clips in an epoch
    cap: int | None = None  # largest number of draws in an epoch
    choose: int | None = None  # exact number of draws in an epoch
    share: float = 1.0  # the part of its clips that is ever drawn; smaller parts lie inside larger ones
    prompt: str | None = None  # "This is a sound of {}": one text of all labels of a clip; needs captions: [label]

    def __post_init__(self) -> None:
        require(bool(self.split), "an item of the mixture needs a split, such as clotho/development", None)
        require(
            bool(self.captions), f"an item of the mixture needs at least one kind of captions of {KINDS}", self.split
        )
        require(self.weight is None or 0 < self.weight <= 1e12, "weight must be positive, at most 1e12", self.weight)
        require(0 < self.repeat <= 1e6, "repeat must be positive, at most a million", self.repeat)
        require(0 < self.share <= 1, "share must be above 0 and at most 1", self.share)
        require(self.cap is None or self.cap > 0, "cap must be positive", self.cap)
        require(self.choose is None or self.choose > 0, "choose must be positive", self.choose)
        if self.prompt is not None:
            require(self.prompt.count("{}") == 1, "prompt must have {} once, where the labels stand", self.prompt)
            alone = self.captions == ("label",) and self.pairs == "clips"
            require(alone, "prompt needs captions: [label] and pairs: clips", (self.captions, self.pairs))


@dataclass(frozen=True)
class MaskingSettings:
    """Time and frequency masks on the normalised spectrogram (SpecAugment, arXiv 1904.08779), drawn for each sample.

    ``fill: floor`` fills masked cells with the value of silence.  ``fill: published`` fills them as the encoder's
    published code does: hear21passt masks the log-mel with 0 before ``(x + 4.5) / 5``, so its masked cells are
    0.9, which is louder than most sound.
    """

    time_masks: int = 0
    time_width: int = 192  # frames; every mask is shorter
    freq_masks: int = 0
    freq_width: int = 48  # bins; every mask is narrower
    fill: Literal["floor", "published"] = "floor"

    def __post_init__(self) -> None:
        require(self.time_masks >= 0 and self.freq_masks >= 0, "numbers of masks must not be negative", None)
        require(self.time_width >= 1, "time_width must be positive", self.time_width)
        require(self.freq_width >= 1, "freq_width must be positive", self.freq_width)


@dataclass(frozen=True)
class AugmentSettings:
    """Changes to the waveform in training; each is off by default."""

    gain_db: float = 0.0  # the gain is uniform in ± this many decibels
    noise: float = 0.0  # probability that white noise is added
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    room: float = 0.0  # probability that the sound is heard in a synthetic room
    room_rt60_s: tuple[float, float] = (0.1, 0.6)
    mixup: float = 0.0  # probability that a clip of the next batch is mixed in; the caption does not change
    mixup_alpha: float = 0.3  # the mixed clip's share is min(x, 1 - x), where x is drawn from Beta(alpha, alpha)

    def __post_init__(self) -> None:
        for name in ("noise", "room", "mixup"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must be a probability, from 0 to 1", value)
        require(self.gain_db >= 0, "gain_db must not be negative", self.gain_db)
        require(self.mixup_alpha > 0, "mixup_alpha must be positive", self.mixup_alpha)
        require(
            0 < self.room_rt60_s[0] <= self.room_rt60_s[1],
            "room_rt60_s must be (low, high), both above 0",
            self.room_rt60_s,
        )
        require(self.noise_snr_db[0] <= self.noise_snr_db[1], "noise_snr_db must be (low, high)", self.noise_snr_db)


@dataclass(frozen=True)
class ShuffleSettings:
    """How an epoch is shuffled.

    Runs of ``run`` neighbouring clips are put into a random order, and each window of about ``window`` clips is
    then shuffled clip by clip.  A window as large as the data gives a true permutation; that is the default up
    to a million clips.  Samples are read by offset, so only the bytes that are used are read, whatever the
    window.  A smaller window does not make reads fewer either until hardly any mixing is left
    (``python -m bench.loader``: 0.97 reads for each clip at a window of 2,048).  A window bounds which part of
    the shards is in use at a time, which helps where a cache of that size lies in front of the storage.
    """

    run: int = 32  # clips
    window: int = 2**20  # clips
    batches: Literal["mixed", "dataset", "length", "neighbours"] = "mixed"  # what the clips of a batch have in common
    neighbours: str | None = None  # for `neighbours`: a Parquet file with clip_id and embedding, from `training embed`

    def __post_init__(self) -> None:
        require(self.run >= 1, "run must be positive", self.run)
        require(self.window >= 1, "window must be positive", self.window)
        require(
            (self.batches == "neighbours") == (self.neighbours is not None),
            "batches: neighbours needs the file neighbours: FILE, and that file needs batches: neighbours",
            self.neighbours,
        )


@dataclass(frozen=True)
class DataSettings:
    """Which samples a run uses, and how they are read."""

    train: tuple[MixtureItem, ...]
    # tables of sentence pairs by the name under which `train` and `validation` list them (`training/data/pairs.py`)
    texts: dict[str, str] = field(default_factory=dict)
    batch_size: int = 64  # clips of a global batch, over all ranks together
    temperature: float | None = None  # the share of an item is proportional to draws^(1/temperature)
    shuffle: ShuffleSettings = field(default_factory=ShuffleSettings)
    last: Literal["drop", "keep"] = "drop"  # what to do with an incomplete last batch of an epoch
    caption_choice: Literal["random", "rotate", "first"] = "random"  # which of a clip's captions is used
    crop: Literal["random", "centre", "start"] = "random"
    crop_s: float = 30.0  # the most seconds of a clip in a sample; an encoder uses the first max_s of them
    lower: bool = True  # captions are turned to lower case
    strip_punctuation: bool = True
    max_tokens: int = 32  # longer captions are cut
    # Parquet files from `annotate` (more captions and tags) and `rewrite` (captions of kind rewritten), local or s3://
    annotations: str | tuple[str, ...] | None = None  # one, or a list
    tags: str | None = None  # which tags of clips are one: "labels" (each is its own), or a JSON file; see data/tags.py
    tagged: Literal["clips", "label captions"] = "clips"  # what has tags: every sample, or one drawn with a label
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    spectrogram: Literal["worker", "device"] = "worker"  # where spectrograms are computed
    # frozen encoders whose vectors are computed once, and where they are kept: null: in the run's folder
    stored: tuple[Literal["audio", "text"], ...] = ()
    stored_folder: str | None = None
    workers: int = 2  # loader processes a rank; 0: in the training process
    readahead: int = 4  # batches that each worker builds ahead
    max_failures: int = 0  # damaged samples that a rank leaves out of the loss before it stops; a new start counts anew

    @property
    def annotation_files(self) -> tuple[str, ...]:
        """The files of annotations, in their order."""
        return (self.annotations,) if isinstance(self.annotations, str) else self.annotations or ()

    def __post_init__(self) -> None:
        require(bool(self.train), "the mixture (train) is empty", None)
        files = self.annotation_files
        require(len(set(files)) == len(files), "annotations names a file twice", files)
        require(self.batch_size >= 1, "batch_size must be positive", self.batch_size)
        require(0 < self.crop_s < 1e9, "crop_s must be positive, and below a thousand million", self.crop_s)
        require(self.max_tokens >= 2, "max_tokens must be at least 2", self.max_tokens)
        require(self.workers >= 0, "workers must not be negative", self.workers)
        require(self.readahead >= 1, "readahead must be positive", self.readahead)
        require(
            self.stored_folder is None or (bool(self.stored) and "://" not in self.stored_folder),
            "stored_folder must be a folder of a file system, and needs a list in stored",
            self.stored_folder,
        )
        require(self.max_failures >= 0, "max_failures must not be negative", self.max_failures)
        require(
            self.temperature is None or self.temperature >= 0.05,
            "temperature must be at least 0.05: below that, only the largest item would be drawn",
            self.temperature,
        )
        weights = [item.weight is not None for item in self.train]
        require(
            all(weights) or not any(weights),
            "either every item of the mixture has a weight or none has",
            [item.split for item in self.train if item.weight is None],
        )
        require(
            not (any(weights) and self.temperature is not None),
            "the mixture can have weights or a temperature, not both",
            self.temperature,
        )
