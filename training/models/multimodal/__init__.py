"""One multimodal language model as audio and text encoder (AuroLA, arXiv 2602.18010).

The text encoder is a causal language model, the audio encoder an audio tower whose tokens that language model reads.
Each role has a prompt that asks to sum up the sound or the sentence in one word, and the embedding is the hidden state
from which that word would be predicted.

A recipe names both parts, of one published model or of two:

    audio: {encoder: multimodal, source: Qwen/Qwen2.5-Omni-7B}
    text: {encoder: multimodal, source: Qwen/Qwen2.5-Omni-7B}
    head: {name: dual, dim: null}
"""
