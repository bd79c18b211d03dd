"""What `search` shows."""

from __future__ import annotations

from training.commands import search


def test_a_caption_cannot_act_on_the_terminal_or_pretend_to_be_another_hit() -> None:
    hit = {"score": 0.5, "clip_id": "mine/a", "shard": "mine-train-000000.tar", "captions": ["rain\n   2. 0.9\x1b[2J"]}
    shown = search.show({"results": {"rain": [hit]}})
    assert shown.splitlines()[1:] == ["   1. 0.5000  mine/a  (mine-train-000000.tar)  rain\\n   2. 0.9\\x1b[2J"]
