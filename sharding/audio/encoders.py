"""Encoding windows for shards: the same samples always give the same bytes."""

from __future__ import annotations

import io

import av
import numpy as np
import soundfile

from sharding.audio.form import AudioForm

OPUS_BITS = 64_000  # a second and channel; listeners cannot tell most sounds from the original
_OPUS_FRAME_S = 0.02


def encode(samples: np.ndarray, form: AudioForm) -> bytes:
    """Encode one window as the bytes of a file in ``form.window_codec``.

    Args:
        samples: int16 ``[n, form.channels]`` at ``form.rate``.
    """
    if form.window_codec == "opus":
        return _opus(samples, form)
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", form.rate, samples.shape[1], "PCM_16", format=form.window_codec.upper()) as file:
        file.write(samples)
    return out.getvalue()


def _opus(samples: np.ndarray, form: AudioForm) -> bytes:
    """Opus in Ogg (RFC 7845); ``bitexact`` fixes the stream's serial number and leaves out version strings."""
    out = io.BytesIO()
    layout = "mono" if form.channels == 1 else "stereo"
    with av.open(out, "w", format="ogg", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=form.rate, layout=layout, format="s16")
        stream.bit_rate = OPUS_BITS * form.channels
        step = round(form.rate * _OPUS_FRAME_S)
        for start in range(0, len(samples), step):
            part = np.ascontiguousarray(samples[start : start + step]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            frame.sample_rate = form.rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
