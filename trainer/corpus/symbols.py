# ruff: noqa: RUF001 - signs that look like letters
"""Signs that Office writes by their number in a font of signs -> the characters that they are."""

_SYMBOL = {
    0x20: " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾",
    0x61: "αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼",
    0xA0: "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊⟨®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪",
    0xF1: "⟩∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭",
}
_WINGDINGS = {
    0x22: "✂",
    0x28: "☎✆✉",
    0x4A: "☺😐☹",
    0x6C: "●❍■□",
    0x71: "❑❒⬧⧫◆❖⬥",
    0x80: "⓪①②③④⑤⑥⑦⑧⑨⑩⓿❶❷❸❹❺❻❼❽❾❿",
    0x9F: "•",
    0xA7: "▪◻",
    0xD8: "➢",
    0xDF: "←→↑↓",
    0xE8: "➔",
    0xF0: "⇨",
    0xFB: "✗✓☒☑",
}
_FONTS = {
    font: {start + at: char for start, chars in table.items() for at, char in enumerate(chars)}
    for font, table in (("symbol", _SYMBOL), ("wingdings", _WINGDINGS))
}
_PRIVATE = range(0xF000, 0xF100)  # where Office keeps the signs of such fonts


def symbol(code: int, font: str) -> str:
    """The character; "" where the font has no letter for it."""
    if code not in _PRIVATE and code > 0xFF:
        return chr(code)
    return _FONTS.get(font.casefold(), {}).get(code & 0xFF, "")


def readable(words: str, font: str) -> tuple[str, int]:
    """(`words` with the characters that their signs are, how many signs were left out)."""
    if not any(ord(char) in _PRIVATE for char in words):
        return words, 0
    found = [symbol(ord(c), font or "symbol") if ord(c) in _PRIVATE else c for c in words]
    return "".join(found), sum(not char for char in found)
