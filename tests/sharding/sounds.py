"""Sound files of every kind that Earshot reads, made from noise: inputs for the tests of decoding and probing."""

from __future__ import annotations

import io

import av
import numpy as np
import soundfile

# name: (libsndfile format, subtype)
LIBSNDFILE = {
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-16": ("WAV", "PCM_16"),
    "wav-24": ("WAV", "PCM_24"),
    "wav-32": ("WAV", "PCM_32"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-double": ("WAV", "DOUBLE"),
    "wav-ulaw": ("WAV", "ULAW"),
    "wav-ima": ("WAV", "IMA_ADPCM"),
    "wavex-24": ("WAVEX", "PCM_24"),
    "rf64-16": ("RF64", "PCM_16"),
    "w64-16": ("W64", "PCM_16"),
    "aiff-16": ("AIFF", "PCM_16"),
    "aifc-ulaw": ("AIFF", "ULAW"),
    "caf-24": ("CAF", "PCM_24"),
    "au-16": ("AU", "PCM_16"),
    "flac-16": ("FLAC", "PCM_16"),
    "flac-24": ("FLAC", "PCM_24"),
    "vorbis": ("OGG", "VORBIS"),
    "ogg-opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
# name: (FFmpeg muxer, encoder, rate or None for the sound's own)
PYAV = {
    "m4a-aac": ("ipod", "aac", None),
    "m4a-alac": ("ipod", "alac", None),
    "adts-aac": ("adts", "aac", None),
    "webm-opus": ("webm", "libopus", 48000),
    "mka-flac": ("matroska", "flac", None),
    "3gp-amr": ("3gp", "libopencore_amrnb", 8000),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "wma": ("asf", "wmav2", None),
    "avi-pcm": ("avi", "pcm_s16le", None),
    "wavpack": ("wv", "wavpack", None),
    "tta": ("tta", "tta", None),
    "ac3": ("ac3", "ac3", 48000),
    "flv-mp3": ("flv", "libmp3lame", 44100),
    "mpegts-aac": ("mpegts", "aac", 44100),
}


def noise(seconds: float = 1.0, rate: int = 16000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """float32 ``[n, channels]``, a decaying burst of noise and two tones."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = 0.2 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 1200 * time)
    wave = tones[:, None] + 0.1 * rng.standard_normal((len(time), channels))
    return np.clip(wave, -0.99, 0.99).astype(np.float32)


def make(kind: str, wave: np.ndarray, rate: int) -> bytes:
    """``wave`` float32 ``[n, channels]`` as a file of the kind (a key of ``LIBSNDFILE`` or ``PYAV``)."""
    out = io.BytesIO()
    if kind in LIBSNDFILE:
        form, subtype = LIBSNDFILE[kind]
        soundfile.write(out, wave, rate, subtype=subtype, format=form)
        return out.getvalue()
    muxer, encoder, own_rate = PYAV[kind]
    layout = {1: "mono", 2: "stereo"}[wave.shape[1]]
    with av.open(out, "w", format=muxer) as container:
        stream = container.add_stream(encoder, rate=own_rate or rate, layout=layout)
        step = 1024
        resampler = av.AudioResampler(stream.format, layout, own_rate or rate, stream.codec_context.frame_size)
        for start in range(0, len(wave), step):
            part = np.ascontiguousarray(wave[start : start + step].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            for piece in resampler.resample(frame):
                container.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()
