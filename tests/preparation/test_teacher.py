"""A teacher behind a URL: asked for what is not known, believed when it answers itself twice."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.chat_server import ChatServer, chat_server
from support.taught import QUESTIONS, teach

from trainer.chat_api import ChatApi
from trainer.dataset.passages import Passage
from trainer.errors import NotAllowedError, UnreachableError
from trainer.preparation import teacher
from trainer.preparation.drafts import Draft
from trainer.preparation.journal import Journal
from trainer.preparation.teacher import Teacher, pairs_of

TEXT = "The Nora X1 costs 310 euros without delivery. Packed for dispatch it weighs 311 kilograms."
PASSAGE = Passage(TEXT, "a.md", "Nora X1")
PAIRS = sum(map(len, QUESTIONS.values()))


def asked(server: ChatServer, folder: Path, minutes: float = 0.0) -> tuple[Teacher, list[Draft]]:
    api = ChatApi("QLORA_TEACHER_URL", server.url, "big", minutes)
    made = Teacher(api, Journal(folder / "replies.jsonl"))
    (drafts,) = made.drafts([PASSAGE])
    return made, drafts


def reasons(write: Callable[[str], str], folder: Path) -> set[str | None]:
    with chat_server(write=write) as server:
        return {draft.reason for draft in asked(server, folder)[1]}


def test_questions_are_good_when_the_answer_is_confirmed(tmp_path: Path) -> None:
    with chat_server(write=teach) as server:
        made, drafts = asked(server, tmp_path)
        assert len(drafts) == PAIRS and not any(draft.reason for draft in drafts)
        assert {d.answer for d in drafts} == {
            "The Nora X1 costs 310 euros without delivery.",
            "Packed for dispatch the Nora X1 weighs 311 kilograms.",
        }
        assert made.spent.requests == len(server.seen) == 4
        assert all(TEXT in body["messages"][0]["content"] for body in server.seen)
        asked(server, tmp_path)
        assert len(server.seen) == 4  # what is known is not asked for again


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: teach(r).replace("310 euros.", "312 euros."), teacher.DISAGREES),
        (lambda r: teach(r).replace("310 euros without", "999 euros without"), teacher.INVENTED),
        (lambda r: teach(r).replace("Q: How", "Sure: how"), None),
        (lambda r: "I cannot do that." if "is: " in r else teach(r), teacher.NO_PAIR),
    ],
)
def test_what_is_wrong_with_a_reply_is_said(
    change: Callable[[str], str], reason: str | None, tmp_path: Path
) -> None:
    assert reason in reasons(change, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "Q: Why so?\nQ: How come?\nA: for a reason",
        "Sure!\n\n1. **Q:** Why so?\n2. **Q:** How come?\n\n**A:** for a reason\n\nThat is it.",
        "<think>Q: No?</think>Question 1: Why so?\nQuestion 2: How come?\nAnswer: for a reason",
    ],
)
def test_questions_and_answer_are_read_in_the_forms_that_models_write(text: str) -> None:
    assert pairs_of(text) == (["Why so?", "How come?"], "for a reason")


def test_half_an_answer_is_asked_for_again_at_the_next_start(tmp_path: Path) -> None:
    with chat_server(write=teach, troubles=["length"]) as server:
        _, drafts = asked(server, tmp_path)
        assert sum(draft.reason == teacher.CUT for draft in drafts) == 1
        seen = len(server.seen)
        _, drafts = asked(server, tmp_path)
        assert len(drafts) == PAIRS and len(server.seen) == seen + 2  # written and confirmed


def test_a_teacher_that_thinks_is_given_the_room_for_it_and_any_other_is_not(
    tmp_path: Path,
) -> None:
    thoughts = ["<think>Well, what does this say?"]
    with chat_server(
        write=lambda r: thoughts.pop() if thoughts else teach(r), troubles=["length"]
    ) as server:
        api = ChatApi("QLORA_TEACHER_URL", server.url, "big", 0.0)
        one = Passage(TEXT.partition(". ")[0] + ".", "a.md", "Nora X1")
        (drafts,) = Teacher(api, Journal(tmp_path / "replies.jsonl")).drafts([one])
    most = [body["max_tokens"] for body in server.seen]
    assert most == [teacher.MOST_TOKENS] + 2 * [teacher.MOST_THOUGHT_TOKENS]
    assert drafts and not any(draft.reason for draft in drafts)


def test_a_server_that_goes_away_costs_nothing_that_it_gave(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"

    def write(request: str) -> str:
        if "weighs" not in request.rpartition("is: ")[2]:
            return teach(request)
        until = time.monotonic() + 20
        while not (replies.exists() and replies.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        raise ConnectionResetError

    said = r"big at .*did not answer.*QLORA_TEACHER_URL"
    with chat_server(write=write) as server, pytest.raises(UnreachableError, match=said):
        asked(server, tmp_path)
    with chat_server(write=teach) as server:
        _, drafts = asked(server, tmp_path)
        assert len(drafts) == PAIRS and len(server.seen) == 3


def test_a_wrong_key_ends_it_in_a_sentence(tmp_path: Path) -> None:
    with (
        chat_server(write=teach, key="right") as server,
        pytest.raises(NotAllowedError, match="set OPENAI_API_KEY"),
    ):
        asked(server, tmp_path)


def test_it_says_before_what_it_will_ask_and_afterwards_what_it_took(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with chat_server(write=teach) as server:
        made, _ = asked(server, tmp_path)
        made.announce(2, 2 * len(TEXT))
        made.report()
    assert "at most 4 requests" in caplog.text and "4 replies are known already" in caplog.text
    assert "gave 4 replies" in caplog.text
