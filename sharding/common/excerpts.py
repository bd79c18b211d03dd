"""Players and pictures of sound for HTML pages, as data URIs inside the page."""

from __future__ import annotations

import base64
import io
from typing import BinaryIO

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

PLAYER_RATE = 22050


def data_uri(kind: str, contents: bytes) -> str:
    """``contents`` as an address that holds them; ``kind`` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"


def excerpt(file: BinaryIO, seconds: float, start_s: float = 0.0) -> tuple[NDArray[np.float32], int]:
    """``seconds`` of a sound file from ``start_s`` on, as mono float32 [n], and its rate in Hz.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read the file.
    """
    with sf.SoundFile(file) as sound:
        sound.seek(min(int(start_s * sound.samplerate), sound.frames))
        wave = sound.read(int(seconds * sound.samplerate), dtype="float32", always_2d=True).mean(axis=1)
        return np.asarray(wave, np.float32), int(sound.samplerate)


def player(wave: NDArray[np.float32], rate: int) -> str:
    """``wave`` [n], mono at ``rate`` Hz, as a data URI of MP3, which every browser plays."""
    if rate != PLAYER_RATE:
        wave = soxr.resample(wave, rate, PLAYER_RATE)
    buffer = io.BytesIO()
    sf.write(buffer, np.clip(wave, -1, 1), PLAYER_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return data_uri("audio/mpeg", buffer.getvalue())


def spectrogram(wave: NDArray[np.float32], rate: int, columns: int = 480) -> str:
    """A spectrogram of ``wave`` [n] as a data URI: time to the right, frequency upwards, level as colour."""
    size, hop = 1024, max(256, len(wave) // columns)
    padded = np.pad(wave, (0, max(0, size - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    edges = np.geomspace(60, min(14000, rate / 2 * 0.95), 97) * size / rate
    low = np.floor(edges[:-1]).astype(int)
    high = np.maximum(np.ceil(edges[1:]).astype(int), low + 1)
    bands = np.stack([power[:, a:b].mean(axis=1) for a, b in zip(low, high, strict=True)])
    level = 10 * np.log10(bands + 1e-9)
    return picture(level, float(level.max()) - 70, float(level.max()), stretch=2 if columns > 300 else 1)


def picture(values: NDArray[np.floating], low: float, high: float, stretch: int = 2) -> str:
    """A PNG of ``values`` [F, T] as a data URI, with row 0 at the bottom and every row ``stretch`` pixels high.

    The colours run from ``low`` to ``high``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import image

    buffer = io.BytesIO()
    stretched = np.repeat(values, stretch, axis=0)
    image.imsave(buffer, stretched, vmin=low, vmax=high, cmap="magma", origin="lower", format="png")
    return data_uri("image/png", buffer.getvalue())
