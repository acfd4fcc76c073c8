"""Which held-out records are asked as questions."""

from trainer.corpus.examples import Conversation, Message, Text
from trainer.dataset.eval_questions import MOST_QUESTIONS, questions_of


def record(question: str, *turns: tuple[str, str]) -> Conversation:
    later = (Message(role, content) for role, content in turns)
    return Conversation((Message("user", question), *later))


def test_only_records_of_one_question_and_one_answer_are_asked() -> None:
    single = record("a", ("assistant", "b "))
    double = record("a", ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    asked = questions_of([Text("prose"), double, single])
    assert [(q.question, q.answer) for q in asked] == [("a", "b")]


def test_the_questions_are_the_same_whatever_their_order() -> None:
    many = [record(str(n), ("assistant", str(n))) for n in range(MOST_QUESTIONS + 20)]
    assert questions_of(many) == questions_of(many[::-1])
    assert len(questions_of(many)) == MOST_QUESTIONS
