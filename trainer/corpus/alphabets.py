"""Which of the Latin code pages a text is in: that in which its letters are those of one language.

The same byte is `è` in one and `č` in the other, and a few sentences are too short for statistics;
but no language has `ø` beside `ù`, which is what Czech becomes in the Western one.
"""

WESTERN = "cp1252"
# Its own letters are, byte by byte, those of Turkish, which more files are in.
_ICELANDIC = "áðéíóúýþæö"
_ALPHABETS = {
    WESTERN: (
        *(
            "àâçéèêëîïôùûüœæÿ",
            "äöüßé",
            "áéíñóúüºª",
            "àèéìíòóùî",
            "ãáâàçéêíóôõúüºª",
            "åäöé",
            "æøåéòôü",
        ),
        *("éëïóèüáö", _ICELANDIC, "àçèéíïòóúü"),
    ),
    "cp1250": (
        *("áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "ăâîşţ", "čćđšž"),
        "äöüßé",
    ),
    "cp1254": ("çğıöşüâîû",),
}
_LEAST = 0.9  # of the letters beside a to z that one language has to have


def code_page(data: bytes, likely: list[str]) -> str | None:
    """The one of `likely`, Latin or not, in which `data` is words of a language; the Western one
    where others are no better, None where it is none of them."""
    fits = {name: _fit(data, name) for name in likely if name in _ALPHABETS}
    if not fits:
        return None
    best = max(fits, key=lambda name: (fits[name], name == WESTERN))
    return best if fits[best] >= _LEAST else None


def _fit(data: bytes, name: str) -> float:
    letters = [char for char in data.decode(name, "replace").lower() if char > "\x7f"]
    letters = [char for char in letters if char.isalpha() or char == "\ufffd"]
    if not letters:
        return 0.0
    return max(
        sum(c in known for c in letters) / len(letters) - 0.05 * (known is _ICELANDIC)
        for known in _ALPHABETS[name]
    )
