"""Writes any amount of varied English text, for bench/data.py; one seed always gives the same.

    python bench/text.py FOLDER MEGABYTES [SEED [DOCUMENTS_IN_FILE]]

Its sentences are walks through Python's own language reference: each next word has followed the
last two there. Names and numbers are made up, so that the vocabulary grows with the text, as a real
one does, and sentences are dealt anew for each document, so that no two are near copies. Files are
.txt and .md, of 2 KB to 2 MB, half of them below 12 KB.
"""

import random
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from pydoc_data.topics import topics

_SENTENCES = 1 << 16  # made once and dealt: walking anew would take hours for 2 GB
_LONGEST_SENTENCE = 40  # words
_LEAST_CHARS, _USUAL_CHARS, _MOST_CHARS = 2_000, 12_000, 2_000_000
_SPREAD = 1.2  # of the logarithm of a document's length
_FILES_IN_FOLDER = 1000
_SYLLABLES = ("bar", "bel", "cor", "dan", "den", "fer", "gal", "hum", "jor", "kel", "lin", "mar")


def sentences(chance: random.Random) -> list[str]:
    """Half of them have a `{}` for a name or a number."""
    words = " ".join(topics.values()).replace("{", "(").replace("}", ")").split()
    following: dict[tuple[str, str], list[str]] = {}
    for first, second, third in zip(words, words[1:], words[2:], strict=False):
        following.setdefault((first, second), []).append(third)
    starts = [pair for pair in following if pair[0][0].isupper() and pair[0].isalpha()]
    return [_sentence(chance, following, starts) for _ in range(_SENTENCES)]


def _sentence(
    chance: random.Random,
    following: dict[tuple[str, str], list[str]],
    starts: list[tuple[str, str]],
) -> str:
    found = list(chance.choice(starts))
    while len(found) < _LONGEST_SENTENCE and not found[-1].endswith("."):
        found.append(chance.choice(following.get((found[-2], found[-1])) or ["and"]))
    if chance.random() < 0.5:
        found.insert(chance.randrange(1, len(found)), "{}")
    return " ".join(found).rstrip(".,;:") + "."


def documents(seed: int) -> Iterator[str]:
    """Markdown without end."""
    chance = random.Random(seed)
    pool = sentences(chance)
    while True:
        wanted = _USUAL_CHARS * chance.lognormvariate(0, _SPREAD)
        wanted = min(max(wanted, _LEAST_CHARS), _MOST_CHARS)
        parts, chars = [f"# {_name(chance)} {_name(chance)}"], 0
        while chars < wanted:
            if chance.random() < 0.1:
                parts.append(f"## {_name(chance)} {len(parts)}")
            dealt = chance.choices(pool, k=chance.randrange(2, 9))
            parts.append(" ".join(sentence.format(_name(chance)) for sentence in dealt))
            chars += len(parts[-1])
        yield "\n\n".join(parts) + "\n"


def _name(chance: random.Random) -> str:
    """Half a million different ones, and numbers; short ones are frequent, as in real text."""
    drawn = chance.random()
    if drawn < 0.2:
        return str(int(1 / (drawn + 1e-6)))
    return "".join(chance.choices(_SYLLABLES, k=1 + int(drawn * 4))).capitalize()


def write(folder: Path, size: int, seed: int, in_file: int) -> None:
    """About `size` bytes; those of a smaller `size` are the first of them."""
    written, found = 0, documents(seed)
    for number in count():
        if written >= size:
            return
        text = "".join(islice(found, in_file))
        into = folder / f"{number // _FILES_IN_FOLDER:04}"
        into.mkdir(parents=True, exist_ok=True)
        suffix = ".md" if number % 2 else ".txt"
        written += (into / f"{number:06}{suffix}").write_bytes(text.encode())


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[2:]]
    seed, in_file = (*given[1:], *(1, 1)[len(given) - 1 :])
    write(Path(sys.argv[1]), given[0] * 10**6, seed, in_file)
