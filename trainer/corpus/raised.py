"""Raised, lowered and struck-out characters in plain text: `10³` where leaving out the height gives
103."""

_SUPER = str.maketrans("0123456789+-\N{MINUS SIGN}=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")
_SUB = str.maketrans("0123456789+-\N{MINUS SIGN}=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")


def superscript(words: str) -> str:
    """As characters that stand high, `st` of 1st as it is, anything else behind `^`."""
    return _raised(words, _SUPER, "^")


def subscript(words: str) -> str:
    return _raised(words, _SUB, "_")


def struck(words: str) -> str:
    """As Markdown writes what is crossed out but still there to be read."""
    inner = words.strip()
    return words.replace(inner, f"~~{inner}~~", 1) if inner else words


def _raised(words: str, table: dict[int, int], sign: str) -> str:
    bare = words.strip()
    if all(ord(char) in table for char in bare):
        return words.translate(table)
    if not any(map(str.isdigit, bare)):
        return words
    return f"{sign}({bare})" if bare[:1] not in "[(" else words
