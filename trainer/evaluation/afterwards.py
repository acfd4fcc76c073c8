"""What a run does once it is trained, and how long that takes, told from its own training.

Base and tuned model are asked, and read what the losses are of; then the adapter is read back.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.dataset.pipeline import Data
from trainer.evaluation.asking import FIRST, most_seconds
from trainer.evaluation.gate import MOST_BLOCKS
from trainer.evaluation.general import general_blocks
from trainer.inference.generate import longest_answer
from trainer.runtime.wording import lasting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Parts and multiples of what a trained token takes: of one that is only read, for what is frozen
# has no gradient of its own; and of one of an answer, of which the first FEW are given at once.
# Behind those more are, each at SHARE of their time.
READ, ANSWERED = 0.5, 3.0
FEW, SHARE = FIRST["cpu"], 0.6


@dataclass(frozen=True)
class Afterwards:
    """`asked` and `asked_base` count the questions of the tuned model and of the base, `most` are
    the tokens of an answer at most, which the base gives, `usual` those of a reference, and `read`
    all that are read for losses and checks."""

    asked: int
    asked_base: int
    most: int
    usual: float
    read: int
    with_passages: bool = False
    """whether they are asked once more with passages of documents in view"""

    @classmethod
    def of(
        cls, data: Data, tokenizer: "PreTrainedTokenizerBase", *, with_passages: bool = False
    ) -> "Afterwards":
        general = general_blocks(tokenizer)
        block_tokens = len(data.train[0].input_ids)
        read = 2 * len(data.held_out) * block_tokens
        read += 2 * sum(len(b.input_ids) for b in (*general.text, *general.answers))
        read += 2 * min(MOST_BLOCKS, len(data.held_out or data.train)) * block_tokens
        asked = len(data.questions) + len(data.trained_questions)
        most = longest_answer(tokenizer, data.questions)
        lengths = [len(tokenizer(q.answer).input_ids) + 1 for q in data.questions]
        usual = sum(lengths) / max(1, len(lengths))
        return cls(asked, len(data.questions), most, usual, read, with_passages)

    def in_words(self, training_s: float, trained_s: float, *, on_gpu: bool) -> str:
        """How fast a GPU answers only answering shows: many as fast as a few."""
        if on_gpu:
            most_s = self.most_asking_s(training_s)
            return f"questions for {lasting(most_s)} at most, and checks"
        return f"{lasting(self.seconds(training_s, trained_s))} of questions and checks"

    def seconds(self, training_s: float, trained_s: float) -> float:
        """Behind a training of `training_s` seconds, in which each token took `trained_s`."""
        return self.asking_s(training_s, 0.0, ANSWERED * trained_s) + self.reading_s(trained_s)

    def asking_s(self, training_s: float, question_s: float, token_s: float) -> float:
        """Where a question takes so long until its answer begins, and each token of that, of the
        first FEW. The tuned model ends its answers where the references end."""
        base_s = question_s + self.most * token_s
        tuned_s = question_s + self.usual * token_s
        once_s = _weighed(self.asked_base) * base_s + _weighed(self.asked) * tuned_s
        return min((1 + self.with_passages) * once_s, self.most_asking_s(training_s))

    def most_asking_s(self, training_s: float) -> float:
        return (1 + self.with_passages) * most_seconds(training_s) if self.asked else 0.0

    def reading_s(self, trained_s: float) -> float:
        return READ * trained_s * self.read


def _weighed(questions: int) -> float:
    """As many that take as long as each of the first."""
    return min(questions, FEW) + SHARE * max(0, questions - FEW)
