"""Sound in and out: recognising, checking, decoding in blocks, encoding, and reading pieces.

``errors``: the classes of what can be wrong.  ``formats``: which format a file is in.  ``structure``: is it all
there.  ``decoders``: blocks of samples, and the policy where decoders disagree.  ``form``, ``encoders``: what is
stored.  ``segments``: pieces for the loader and the matcher.
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
