"""Whether the words of a question point to one passage of all, for whoever sees none of them."""

from collections import defaultdict
from collections.abc import Iterable

from trainer.dataset.domain import stem
from trainer.dataset.passages import Passage
from trainer.preparation.checks import content_words


class PassageWords:
    """The words of all passages, with the headings above them, without what inflects them."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._having: dict[str, set[str]] = defaultdict(set)
        for passage in passages:
            for word in content_words(f"{passage.section} {passage.text}", ""):
                self._having[stem(word)].add(passage.key)

    def point_to(self, question: str, passage: Passage) -> bool:
        """Whether no other passage has all the words that this one shares with the question."""
        having = [self._having.get(stem(word), set()) for word in content_words(question, "")]
        shared = [keys for keys in having if passage.key in keys]
        return bool(shared) and set.intersection(*shared) == {passage.key}
