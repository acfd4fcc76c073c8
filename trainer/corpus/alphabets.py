# ruff: noqa: RUF001 - letters of many alphabets
"""Which code page of one byte a character a text is in: that in which its words are of a language.

The same byte is `è` in one and `č` in another, and a few sentences are too short for statistics;
but no language has `ø` beside `ù`, which is what Czech becomes in the Western one, none has capital
letters or daggers inside of its words, and every one has letters that half of a text is made of.
"""

import re
import unicodedata
from dataclasses import dataclass

WESTERN = "cp1252"
# Of pages in which a text is as good, the first: what most files are in, then what older systems
# wrote.
_LATIN = {
    WESTERN: "western",
    "cp1250": "central",
    "cp1254": "turkish",
    "cp1257": "baltic",
    "iso8859_2": "central",
    "iso8859_4": "baltic",
    "mac_roman": "western",
    "mac_latin2": "central",
    "cp850": "western",
    "cp437": "western",
    "cp852": "central",
    "cp857": "turkish",
    "cp775": "baltic",
}
# Its own letters are, byte by byte, those of Turkish, which more files are in.
_ICELANDIC = "áðéíóúýþæö"
_GERMAN = "äöüßé"
_TURKISH, _RARE = "çğıöşüâîû", "âîû"  # which is what Latvian becomes in the Turkish one
_ALPHABETS = {
    "western": (
        *("àâçéèêëîïôùûüœæÿ", _GERMAN, "áéíñóúüºª", "àèéìíòóùî", "ãáâàçéêíóôõúüºª", "åäöé"),
        *("æøåéòôü", "éëïóèüáö", _ICELANDIC, "àçèéíïòóúü"),
    ),
    "central": (
        *("áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "ăâîşţ", "čćđšž"),
        _GERMAN,
    ),
    "turkish": (_TURKISH,),
    "baltic": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
}


@dataclass(frozen=True)
class _Script:
    """The letters of a script, and those that are more than half of its texts."""

    letters: frozenset[str]
    frequent: frozenset[str]
    pages: tuple[str, ...]


def _script(letters: str, frequent: str, *pages: str) -> _Script:
    return _Script(frozenset(letters), frozenset(frequent), pages)


def _between(first: str, last: str) -> str:
    return "".join(map(chr, range(ord(first), ord(last) + 1)))


_CYRILLIC_PAGES = ("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic")
_SCRIPTS = (
    _script(_between("а", "я") + "ё", "оеаинтсрвлк", *_CYRILLIC_PAGES),
    _script(_between("а", "я") + "ґєії", "оаинвтерсік", *_CYRILLIC_PAGES),
    _script(_between("а", "я") + "ђјљњћџѓќѕ", "аоиентсрјвк", *_CYRILLIC_PAGES),
    _script(_between("α", "ω"), "αοιετσνηρυκ", "cp1253", "iso8859_7", "cp737", "mac_greek"),
    _script(_between("א", "ת"), "יוהלאתרמבש", "cp1255", "iso8859_8", "cp862"),
    _script(_between("ء", "ي") + "پچژکگی", "اليمونرتبة", "cp1256", "iso8859_6"),
    _script(_between("ก", "ฺ") + _between("เ", "๛"), "านรกเองมย่ลวดท", "cp874"),
)
_LEAST = 0.95  # of the characters beside ASCII's that one language has to have
_LEAST_FREQUENT = 0.7  # where all letters are 1/2
_FEWEST_LETTERS = 4
_MOST_BEYOND_ASCII = 0.6  # of the letters in such words where the alphabet is Latin
_WORD = re.compile(rb"[^\x00-\x20]{0,20}[\x80-\xff][^\x00-\x20]{0,20}")
_SAMPLE_BYTES = 4000
# What stands between words or at their ends in any language, and what may stand inside of one.
_SIGNS = set("„“”‚‘’–—…«»‹›§°€£•·©®™²³½¼¾×±¿¡\xa0ªº")
_OPENING = set("„‚¿¡«‹£")
_INSIDE = set("’‘·°\xa0–—")


def code_page(data: bytes) -> str | None:
    """The page in which `data` is words of a language; None where it is in none."""
    sample = b" ".join(_WORD.findall(data))[:_SAMPLE_BYTES]
    best, best_page = 0.0, None
    for page, kind in _LATIN.items():
        text = _plain(sample, page)
        fit = max(_fit(text, alphabet) for alphabet in _ALPHABETS[kind])
        if fit > best:
            best, best_page = fit, page
    if best >= _LEAST:
        return best_page
    return _of_a_script(sample)


def _of_a_script(sample: bytes) -> str | None:
    found = [
        (frequent, page)
        for script in _SCRIPTS
        for page in script.pages
        if (frequent := _frequent(_plain(sample, page), script)) >= _LEAST_FREQUENT
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _plain(sample: bytes, page: str) -> str:
    """Empty where it cannot be in this page."""
    try:
        return sample.decode(page)
    except UnicodeDecodeError:
        return ""


def _fit(text: str, alphabet: str) -> float:
    """The share of what is beyond ASCII that words in this alphabet may have."""
    right = wrong = ascii_letters = 0
    for at, char in enumerate(text):
        if char < "\x80":
            ascii_letters += char.isalpha()
        elif _is_right(text, at, alphabet):
            right += 1
        elif not _is_sign(text, at):
            wrong += 1
    if not right or right > _MOST_BEYOND_ASCII * (right + ascii_letters):
        return 0.0
    rare = sum(map(text.count, _RARE)) / right if alphabet is _TURKISH else 0.0
    return right / (right + wrong) - 0.02 * (alphabet is _ICELANDIC) - 0.1 * rare


def _is_right(text: str, at: int, alphabet: str) -> bool:
    char = text[at]
    if char.lower() not in alphabet:
        return False
    return not (char.isupper() and at and text[at - 1].islower())


def _is_sign(text: str, at: int) -> bool:
    """Whether it is no letter and stands where such a sign may."""
    char = text[at]
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if char not in _SIGNS or (char in _OPENING and before.isalpha()):
        return False
    return char in _INSIDE or not (before.isalpha() and after.isalpha())


def _frequent(text: str, script: _Script) -> float:
    """The share of letters in what is beyond ASCII, and of frequent ones; 0 where it is not in
    this script."""
    beyond = letters = frequent = signs = 0
    for at, char in enumerate(text):
        if char < "\x80":
            continue
        beyond += 1
        lower = char.lower()
        bare = lower if lower in script.letters else unicodedata.normalize("NFD", lower)[0]
        is_right = not (char.isupper() and at and text[at - 1].islower())
        if bare in script.letters and is_right:
            letters += 1
            frequent += bare in script.frequent
        elif _is_sign(text, at) or unicodedata.category(char)[0] == "M":
            signs += 1
    others = sum(map(str.isalpha, text)) - letters
    if letters < _FEWEST_LETTERS or letters + signs < _LEAST * beyond or others > letters:
        return 0.0
    return (frequent + letters) / (2 * beyond)
