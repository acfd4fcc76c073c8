"""Which records are asked as questions, and what is given with them."""

from trainer.corpus.examples import Conversation, Message, Text
from trainer.dataset.eval_questions import MOST_QUESTIONS, questions_of


def record(question: str, *turns: tuple[str, str]) -> Conversation:
    later = (Message(role, content) for role, content in turns)
    return Conversation((Message("user", question), *later))


def test_the_last_question_is_asked_with_all_that_stands_before_it() -> None:
    (asked,) = questions_of(
        [record("a", ("assistant", "b"), ("user", "c"), ("assistant", "d "), ("user", "thanks"))]
    )
    assert (asked.question, asked.answer) == ("c", "d")
    assert [turn.content for turn in asked.turns] == ["a", "b", "c"]
    assert asked.as_text == "[user] a\n[assistant] b\nc"


def test_a_system_prompt_is_given_too() -> None:
    turns = record("a", ("assistant", "b")).messages
    (asked,) = questions_of([Conversation((Message("system", "Be short."), *turns))])
    assert asked.turns == (Message("system", "Be short."), Message("user", "a"))


def test_what_holds_no_question_with_its_answer_is_not_asked() -> None:
    opening = Conversation((Message("assistant", "Hello."), Message("user", "a")))
    told = Conversation((Message("system", "a"), Message("assistant", "b")))
    called = Conversation(record("a", ("assistant", "b")).messages, tools='[{"name": "look"}]')
    assert questions_of([Text("prose"), opening, told, called]) == []


def test_an_answer_that_is_given_is_no_answer_to_ask_for() -> None:
    given = Message("assistant", "d", trained=False)
    turns = (*record("a", ("assistant", "b"), ("user", "c")).messages, given)
    (asked,) = questions_of([Conversation(turns)])
    assert (asked.question, asked.answer) == ("a", "b")


def test_the_questions_are_the_same_whatever_their_order() -> None:
    many = [record(str(n), ("assistant", str(n))) for n in range(MOST_QUESTIONS + 20)]
    assert questions_of(many) == questions_of(many[::-1])
    assert len(questions_of(many)) == MOST_QUESTIONS
