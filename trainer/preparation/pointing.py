"""Whether the words of a question point to one passage of all, for whoever sees none of them."""

from collections import defaultdict
from collections.abc import Iterable

from trainer.dataset.domain import stem
from trainer.dataset.passages import Passage
from trainer.preparation.checks import content_words
from trainer.preparation.statements import statements_of


class PassageWords:
    """The words of all passages, with the headings above them, without what inflects them; and
    which of them state the same."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._having: dict[str, set[str]] = defaultdict(set)
        # of each statement, the passages that make it and what each of them says it about
        self._stating: dict[str, dict[str, str]] = defaultdict(dict)
        for passage in passages:
            for statement in statements_of(passage):
                self._stating[statement.text][passage.key] = statement.subject
            for word in content_words(f"{passage.section} {passage.text}", ""):
                self._having[stem(word)].add(passage.key)

    def stating(self, statement: str, passage: Passage) -> set[str]:
        """The keys of the passages that make a statement of this one, about the same."""
        subjects = self._stating.get(statement, {})
        mine = subjects.get(passage.key)
        return {passage.key, *(key for key, about in subjects.items() if about == mine)}

    def point_to(self, question: str, passage: Passage, statement: str = "") -> bool:
        """Whether no other passage has all the words that this one shares with the question, but
        for those that make the `statement` too."""
        having = [self._having.get(stem(word), set()) for word in content_words(question, "")]
        shared = [keys for keys in having if passage.key in keys]
        return bool(shared) and set.intersection(*shared) <= self.stating(statement, passage)
