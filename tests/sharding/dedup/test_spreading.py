import itertools

from hypothesis import given
from hypothesis import strategies as st

from sharding.common.progress import Progress
from sharding.dedup import spreading
from sharding.dedup.spreading import PIECE_S, Spreader, pieces


@given(st.lists(st.floats(0, 2 * PIECE_S)))
def test_pieces_hold_every_item_once_in_order_and_little_work(costs: list[float]) -> None:
    found = list(pieces(range(len(costs)), costs.__getitem__))
    assert [item for piece in found for item in piece] == list(range(len(costs)))
    for piece in found:
        assert len(piece) == 1 or sum(costs[item] for item in piece) <= PIECE_S * (1 + 1e-9)
    for piece, following in itertools.pairwise(found):
        assert sum(costs[item] for item in piece) + costs[following[0]] > PIECE_S * (1 - 1e-9)


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def test_progress_moves_after_every_piece_of_work() -> None:
    seen: list[int] = []
    spreader = Spreader(map, lambda what, total, unit: Progress(what, total, unit, lambda now: seen.append(now.done)))
    progress = spreader.begin("compare", 10, "pairs")
    found = dict(spreader.each(progress, doubled, range(10), lambda item: spreading.PIECE_S / 2))
    assert found == {item: 2 * item for item in range(10)}
    assert seen == [0, 2, 4, 6, 8, 10]
