"""Raised characters keep their meaning in plain text."""

import pytest

from trainer.corpus.raised import subscript, superscript


@pytest.mark.parametrize(
    "words, raised",
    [
        ("2", "²"),
        ("-3", "⁻³"),
        ("n+1", "ⁿ⁺¹"),
        ("st", "st"),
        ("[4]", "[4]"),
        ("2x", "^(2x)"),
        ("", ""),
    ],
)
def test_superscripts(words: str, raised: str) -> None:
    assert superscript(words) == raised


@pytest.mark.parametrize("words, lowered", [("2", "₂"), ("max", "max"), ("i1", "_(i1)")])
def test_subscripts(words: str, lowered: str) -> None:
    assert subscript(words) == lowered
