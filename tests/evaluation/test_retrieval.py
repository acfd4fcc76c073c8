"""The best passages of the documents beside a question, and both models asked with them in view."""

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from support.loaded import built_in_model

from trainer.dataset.eval_questions import Question
from trainer.dataset.passages import Passage
from trainer.evaluation.compare import Scores, WithPassages, compare
from trainer.evaluation.retrieval import ROW_SCORES, PassageIndex, compare_with_passages, table

PASSAGES = [
    Passage("It weighs 30 kilograms and is carried by two people.", "a.md", "Curlew A7"),
    Passage("It weighs 4 kilograms and is carried by one person.", "b.md", "Dunlin B2"),
    Passage("The lid of both is closed while the motor turns.", "c.md", ""),
    Passage("乾燥機の保証は三年です。", "d.md", ""),
]
HEAVY = Question("How many kilograms does the Dunlin B2 weigh?", "The Dunlin B2 weighs 4 kg.")


@pytest.mark.parametrize(
    ("question", "best"),
    [(HEAVY.question, 1), ("is the LID closed?", 2), ("保証は何年ですか", 3)],
)
def test_the_passage_with_the_rarest_words_of_a_question_is_best(question: str, best: int) -> None:
    found = PassageIndex(PASSAGES).best(question)
    assert found[0] is PASSAGES[best] and len(found) <= 3


def test_a_passage_that_shares_no_word_is_not_shown() -> None:
    index = PassageIndex(PASSAGES[:1])
    assert index.best("Why?") == index.best("") == []
    assert index.best("Who is carried?") == PASSAGES[:1]


def test_both_models_are_asked_with_passages_in_view_as_many_as_there_is_room_for(
    tmp_path: Path,
) -> None:
    loaded, tokenizer = built_in_model(tmp_path)
    model: Any = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"]))
    alone = compare(model, tokenizer, [], [HEAVY])
    index = PassageIndex(PASSAGES)
    both = compare_with_passages(model, tokenizer, alone, index).with_passages
    assert both is not None and (both.passages, both.questions) == (3, 1)
    (reply,) = both.base.replies
    shown = tokenizer.decode(reply.prompt_ids)
    assert shown.index("Dunlin B2\nIt weighs 4") < shown.index("Curlew") < shown.index("say: How")
    assert both.tuned.replies[0].prompt_ids == reply.prompt_ids
    model.config.max_position_embeddings = len(reply.prompt_ids)  # the answer needs some of it
    (fewer,) = compare_with_passages(model, tokenizer, alone, index).with_passages.base.replies  # type: ignore[union-attr]
    assert "Dunlin B2\nIt weighs 4" in tokenizer.decode(fewer.prompt_ids)
    assert len(fewer.prompt_ids) < len(reply.prompt_ids)


def test_each_way_to_answer_is_a_row_with_its_intervals() -> None:
    found = WithPassages(3, 50, Scores(told=0.5), Scores(told=1.0, exact=0.9))
    head, *rows = table(Scores(told=0.0), Scores(exact=0.4), 100, found)
    assert [row[0] for row in rows] == [
        "base", "base with 3 passages", "adapter", "adapter with 3 passages"
    ]  # fmt: skip
    told = 1 + ROW_SCORES.index("told")
    assert [row[told] for row in rows] == ["0% (0-4%)", "50% (37-63%)", "-", "100% (93-100%)"]
    assert {len(row) for row in (head, *rows)} == {1 + len(ROW_SCORES)}
