"""Sound files: recognising their format, checking that they are complete, decoding, encoding, and reading segments.

``errors``: the classes of what can be wrong.  ``formats``: which format a file is in.  ``structure``, ``streams``,
``containers``, ``flac``: whether a file is complete.  ``decoders``: blocks of samples, and which decoder is believed.
``form``, ``encoders``: how sound is stored.  ``segments``: parts of a file in memory, for the loader and the matcher.
"""

from sharding.audio.decoders import Decoded, decode
from sharding.audio.encoders import encode
from sharding.audio.errors import ERROR_CLASSES, AudioError
from sharding.audio.form import CANONICAL_RATE, AudioForm, mix, quantise
from sharding.audio.segments import decode_segment
from sharding.audio.source import Source

__all__ = [
    "CANONICAL_RATE",
    "ERROR_CLASSES",
    "AudioError",
    "AudioForm",
    "Decoded",
    "Source",
    "decode",
    "decode_segment",
    "encode",
    "mix",
    "quantise",
]
