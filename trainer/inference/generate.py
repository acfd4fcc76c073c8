"""A model's greedy answers to many questions, as many together as memory allows."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trainer.corpus.examples import Message
from trainer.dataset.domain import Domain
from trainer.dataset.eval_questions import Question
from trainer.engine.prompt import Prompt
from trainer.inference.known_replies import KnownReplies, key_of
from trainer.inference.reply import Reply
from trainer.monitoring.counting import Add, counting
from trainer.runtime.device import out_of_memory
from trainer.runtime.wording import counted
from trainer.tokenization.record_tokenizer import answer_of, question_ids, stop_ids, thought_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MAX_THOUGHT_TOKENS = 256  # before it, where answers begin with a thought
MAX_REFERENCE_ANSWER_TOKENS = 256  # a question that has a reference is answered no longer


class Running(Protocol):
    """Answers that are made together, each with a number that its asker gave it; they may differ
    in length and in how they are continued."""

    def __len__(self) -> int: ...

    @property
    def rows(self) -> int:
        """How many there is room for."""
        ...

    @property
    def free(self) -> int:
        """How many may join."""
        ...

    def fits(self, prompt: Prompt) -> bool:
        """Whether there is room enough for it and its answer."""
        ...

    def join(self, prompts: Mapping[int, Prompt]) -> None:
        """Read them; each has a first token then."""
        ...

    def step(self) -> None:
        """One more token of each."""
        ...

    def newest(self, first: int = 0) -> list[tuple[int, int]]:
        """The newest token of each from the `first` on, in the order in which they joined or
        moved up; those that had ended before have to be taken away."""
        ...

    def take_ended(self) -> list[tuple[int, list[int]]]:
        """Take those away that have ended, with all their tokens."""
        ...

    def leave(self, number: int) -> None:
        """Take one away that has not."""
        ...


class Decoder(Protocol):
    """Greedy continuations of token ids. With `tuned` off they are the base's own."""

    def answers(
        self, prompts: Sequence[Sequence[int]], most: int, *, tuned: bool, most_rows: int
    ) -> Iterator[tuple[int, list[int]]]:
        """The number of each prompt with its answer of at most `most` tokens, the one that ended
        it included, as they end; at most `most_rows` together."""
        ...

    def stream(self, prompt: Prompt, *, tuned: bool) -> Iterator[int]:
        """The tokens of one answer, each as soon as it is known; closing it ends the answer."""
        ...

    def open(self, questions: int, length: int, most: int, *, tuned: bool) -> Running:
        """Room for so many answers together, or fewer, of at most `most` tokens, each with its
        prompt in `length`. Whatever was opened before is at its end."""
        ...

    def close(self) -> None:
        """Free all memory that is not the model's. It is taken again where it is needed."""
        ...


class Answerer:
    """Answers of a model, bare or a PeftModel; what it takes beside the model is kept until
    `close`. With `engine` off transformers gives them; `base_replies` are known already."""

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        engine: bool = True,
        base_replies: KnownReplies | None = None,
        domain: Domain | None = None,
        ends: Sequence[int] = (),
    ) -> None:
        """`ends` are the tokens that end an answer, where not the chat template's. What the tuned
        model is asked beside its `domain` is refused without it, in no tokens."""
        self._tokenizer, self._base_replies, self._domain = tokenizer, base_replies, domain
        self._ends = list(ends) or stop_ids(tokenizer)
        self._known = 0
        self._decoder = choose_decoder(model, self._ends, tokenizer.pad_token_id, engine=engine)

    def __enter__(self) -> "Answerer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._known:
            log.info("the base's answers to %s were known", counted(self._known, "question"))
        self.close()

    def close(self) -> None:
        """Free what it has taken."""
        self._decoder.close()

    def longest(self, questions: Sequence[Question]) -> int:
        """`longest_answer` to them."""
        return longest_answer(self._tokenizer, questions)

    def answers(self, questions: Sequence[Question], *, tuned: bool = True) -> list[Reply]:
        """Answers to `questions`, at most so long."""
        turns = [question.turns for question in questions]
        return self.replies(turns, self.longest(questions), tuned=tuned)

    def replies(
        self,
        questions: Sequence[str | Sequence[Message]],
        max_new_tokens: int,
        *,
        tuned: bool = True,
    ) -> list[Reply]:
        """Answers of at most `max_new_tokens` tokens, in the order of the questions, each a text or
        turns that end with one.

        Raises RuntimeError (out of memory) where not even one fits.
        """
        if tuned and self._domain is not None:
            refused = [self._domain.refuses(question) for question in questions]
        else:
            refused = [False] * len(questions)
        both = list(zip(questions, refused, strict=True))
        prompts = [question_ids(self._tokenizer, question) for question, no in both if not no]
        with counting("answering", len(questions)) as add:
            add(sum(refused))
            made = iter(self._replies(prompts, max_new_tokens, add, tuned=tuned))
        refusal = Reply(self._domain.refusal if self._domain else "", stopped=True)
        return [refusal if no else next(made) for no in refused]

    def continuations(
        self, prompts: list[list[int]], max_new_tokens: int, *, tuned: bool = True
    ) -> list[list[int]]:
        """What follows the tokens of each prompt, which is no chat, with the token that ended it.

        Raises RuntimeError (out of memory) where not even one fits.
        """
        with counting("continuing", len(prompts)) as add:
            made = self._made(prompts, max_new_tokens, add, tuned=tuned)
        return [list(reply.ids) for reply in made]

    def _replies(
        self, prompts: list[list[int]], max_new_tokens: int, add: Add, *, tuned: bool
    ) -> list[Reply]:
        known = None if tuned else self._base_replies
        if known is None:
            return self._made(prompts, max_new_tokens, add, tuned=tuned)
        keys = [key_of(prompt, self._ends, max_new_tokens) for prompt in prompts]
        new = {key: p for key, p in zip(keys, prompts, strict=True) if known.of(key) is None}
        if new:
            made = self._made(list(new.values()), max_new_tokens, add, tuned=tuned)
            known.keep(dict(zip(new, made, strict=True)))
        if len(new) < len(keys):
            add(len(keys) - len(new))
            self._known += len(keys) - len(new)
        return [reply for key in keys if (reply := known.of(key)) is not None]

    def _made(
        self, prompts: list[list[int]], max_new_tokens: int, add: Add, *, tuned: bool
    ) -> list[Reply]:
        found: dict[int, list[int]] = {}
        together = len(prompts)
        while missing := [number for number in range(len(prompts)) if number not in found]:
            together = min(together, len(missing))
            answers = self._decoder.answers(
                [prompts[number] for number in missing],
                max_new_tokens,
                tuned=tuned,
                most_rows=together,
            )
            try:
                for at, answer in answers:
                    found[missing[at]] = answer
                    add(1)
                continue
            except RuntimeError as error:
                if together == 1 or not out_of_memory(error):
                    raise
            del answers  # and what it holds
            self.close()
            together //= 2
        return [self._reply(prompt, found[number]) for number, prompt in enumerate(prompts)]

    def _reply(self, prompt: list[int], ids: list[int]) -> Reply:
        stopped = ids[-1] in self._ends
        text = answer_of(self._tokenizer, ids[:-1] if stopped else ids)
        return Reply(text, stopped, tuple(prompt), tuple(ids))


def longest_answer(tokenizer: "PreTrainedTokenizerBase", questions: Sequence[Question]) -> int:
    """Tokens that answers may have: twice as many as the longest reference."""
    references = [len(tokenizer(q.answer).input_ids) for q in questions]
    longest = min(max(references, default=0) * 2 + 8, MAX_REFERENCE_ANSWER_TOKENS)
    return longest + MAX_THOUGHT_TOKENS if thought_end(tokenizer) else longest


def choose_decoder(model: Any, ends: Sequence[int], pad: int, *, engine: bool) -> Decoder:
    """Our own loop where the engine knows the model, transformers' elsewhere."""
    from trainer.engine.greedy_decoder import ROUNDED, GreedyDecoder, why_not
    from trainer.engine.support import reach
    from trainer.inference.by_length import ByLength
    from trainer.inference.stock_decoder import StockDecoder

    reason = why_not(model) if engine else "the engine was switched off"
    if reason is None:
        own, longest = GreedyDecoder(model, ends), reach(model.config)
        if longest >= model.config.get_text_config().max_position_embeddings:
            return own
        longest = longest // ROUNDED * ROUNDED  # rows have room for so many
        return ByLength(own, StockDecoder(model, ends, pad), longest)
    log.info("transformers answers: %s", reason)
    return StockDecoder(model, ends, pad)
