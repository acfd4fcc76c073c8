"""Signs of Office's fonts are the characters that they are."""

import pytest

from trainer.corpus.symbols import readable, symbol


@pytest.mark.parametrize(
    "code, font, char",
    [
        (0xF0B0, "Symbol", "°"),
        (0xF057, "Symbol", "\N{GREEK CAPITAL LETTER OMEGA}"),
        (0xF07E, "Symbol", "\N{TILDE OPERATOR}"),
        (0xF0FE, "Symbol", "\N{RIGHT CURLY BRACKET LOWER HOOK}"),
        (0xF0FE, "Wingdings", "☑"),
        (0xE0, "wingdings", "→"),
        (0x2713, "Segoe UI Symbol", "✓"),
        (0xF041, "Webdings", ""),
    ],
)
def test_a_sign_is_its_character(code: int, font: str, char: str) -> None:
    assert symbol(code, font) == char


def test_what_has_no_character_is_counted() -> None:
    assert readable("a \uf0b3 2\uf001", "") == ("a ≥ 2", 1)
    assert readable("plain", "Symbol") == ("plain", 0)
