from __future__ import annotations

import pytest

from sharding.sources.identities import normalised_identity


@pytest.mark.parametrize(
    ("written", "identity"),
    [
        ("freesound:007", "freesound:7"),
        ("https://freesound.org/people/ann/sounds/117790/", "freesound:117790"),
        ("https://www.youtube.com/watch?v=r1nicOVtvkQ&t=130", "youtube:r1nicOVtvkQ@130.000"),
        ("https://youtu.be/r1nicOVtvkQ?t=130s", "youtube:r1nicOVtvkQ@130.000"),
        ("https://youtu.be/r1nicOVtvkQ?t=1m30s", "youtube:r1nicOVtvkQ"),
        ("YouTube:r1nicOVtvkQ@130", "youtube:r1nicOVtvkQ@130.000"),
        ("https://youtu.be/r1nicOVtvkQ", "youtube:r1nicOVtvkQ"),
        ("bbc:NHU05051026", "bbc:NHU05051026"),
        ("Not found", None),
        ("", None),
    ],
)
def test_identities_have_one_spelling(written: str, identity: str | None) -> None:
    assert normalised_identity(written) == identity


@pytest.mark.parametrize("written", ["youtube:r1nicOVtvkQ@nan", "youtube:r1nicOVtvkQ@-1", "freesound:" + "1" * 5000])
def test_a_text_that_is_not_an_identity_is_an_error(written: str) -> None:
    with pytest.raises(ValueError):
        normalised_identity(written)
