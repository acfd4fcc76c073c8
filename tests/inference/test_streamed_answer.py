"""What is known of an answer at its end: how many tokens, and whether it was cut."""

from collections.abc import Generator
from pathlib import Path

import pytest
from support.small_adapters import TINY
from transformers import AutoTokenizer

from trainer.engine.prompt import Prompt
from trainer.inference.streamed_answer import StreamedAnswer, TextPieces

TOKENIZER = AutoTokenizer.from_pretrained(Path(TINY))
TEXT = "The Curlew weighs 3 kg and costs 9 euros"
IDS = TOKENIZER(TEXT, add_special_tokens=False).input_ids
END = TOKENIZER.eos_token_id


def answered(ids: list[int], most: int, stops: tuple[str, ...] = ()) -> StreamedAnswer:
    given = (token for token in ids)
    return StreamedAnswer(TOKENIZER, [END], given, Prompt([5, 6, 7], most), stops)


@pytest.mark.parametrize(
    ("ended", "most", "was_cut"),
    [(True, len(IDS) + 1, False), (True, 99, False), (False, len(IDS), True)],
)
def test_an_answer_that_its_limit_ends_was_cut(ended: bool, most: int, was_cut: bool) -> None:
    answer = answered([*IDS, END] if ended else IDS, most)
    assert "".join(answer.pieces()) == TEXT
    assert (answer.prompt_tokens, answer.answer_tokens) == (3, len(IDS) + ended)
    assert answer.was_cut is was_cut


def test_one_that_a_text_ends_was_not_cut_and_takes_no_more_tokens() -> None:
    taken = []

    def tokens() -> Generator[int, None, None]:
        for token in IDS:
            taken.append(token)
            yield token

    answer = StreamedAnswer(TOKENIZER, [END], tokens(), Prompt([5], len(IDS)), (" weighs",))
    assert "".join(answer.pieces()) == "The Curlew"
    assert not answer.was_cut and len(taken) < len(IDS)


def test_what_is_left_is_told_to_whoever_makes_the_tokens() -> None:
    left = []

    def tokens() -> Generator[int, None, None]:
        try:
            yield from IDS
        finally:
            left.append(True)

    pieces = StreamedAnswer(TOKENIZER, [END], tokens(), Prompt([5], 99), ()).pieces()
    assert TEXT.startswith(next(pieces))
    pieces.close()
    assert left == [True]


def test_pieces_end_where_the_tokens_to_come_cannot_change_them() -> None:
    text = TextPieces(TOKENIZER)
    pieces = [text.add(token) for token in IDS] + [text.end()]
    assert "".join(pieces) == TEXT
    assert all(piece.endswith(" ") for piece in pieces[:-1] if piece)
