"""Of a tree of messages the turns shown last are read; an answer to a picture is not trained."""

from collections import Counter
from typing import Any

import pytest

from trainer.corpus.examples import NotTrained, Unusable
from trainer.corpus.message_trees import OTHER_MESSAGES, UNSEEN, shown_turns

PICTURE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}


def message(role: str, *parts: Any, kind: str = "text", **more: Any) -> dict[str, Any]:
    return {
        "author": {"role": role},
        "content": {"content_type": kind, "parts": list(parts)},
        **more,
    }


def shown(*messages: dict[str, Any]) -> tuple[list[tuple[str, str, bool]], dict[str, int]]:
    """(who, what, whether it is trained) of each turn, and what is told."""
    mapping = {
        str(at): {"message": one, "parent": str(at - 1) if at else None}
        for at, one in enumerate(messages)
    }
    counts: Counter[str] = Counter()
    turns = shown_turns(mapping, str(len(messages) - 1), counts)
    found = [(turn["role"], turn["content"], turn.get("weight") != 0) for turn in turns]
    return found, dict(counts)


def test_what_was_said_aloud_is_text() -> None:
    words = {"content_type": "audio_transcription", "text": "Which bird?"}
    sound = {"content_type": "real_time_user_audio_video_asset_pointer"}
    spoken = message("user", words, sound, kind="multimodal_text")
    assert shown(spoken, message("assistant", "A plover.")) == (
        [("user", "Which bird?", True), ("assistant", "A plover.", True)],
        {},
    )


def test_the_answer_to_a_picture_is_given_and_told() -> None:
    asked = message("user", PICTURE, "Which bird?", kind="multimodal_text")
    turns = asked, message("assistant", "This one."), message("user", "How big?")
    assert shown(*turns, message("assistant", "A hand long.")) == (
        [
            ("user", "Which bird?", True),
            ("assistant", "This one.", False),
            ("user", "How big?", True),
            ("assistant", "A hand long.", True),
        ],
        {UNSEEN: 1},
    )


def test_a_conversation_about_a_picture_alone_is_left_out() -> None:
    asked = message("user", PICTURE, kind="multimodal_text")
    with pytest.raises(NotTrained, match="nothing but pictures"):
        shown(asked, message("assistant", "This one."))


def test_where_an_answer_was_found_is_no_part_of_it() -> None:
    answer = "It wades.\ue200cite\ue202turn0search0\ue201 So do others.【4†source】"
    search = message("assistant", "search()", recipient="web")
    found, told = shown(message("user", "Does it?"), search, message("assistant", answer))
    assert found[1] == ("assistant", "It wades. So do others.", True)
    assert told == {OTHER_MESSAGES: 1}


@pytest.mark.parametrize("begun", ["\ue200cite", "【4†source"])
def test_many_places_that_do_not_end_are_words(begun: str) -> None:
    """And take no time."""
    found, _ = shown(message("user", "Does it?"), message("assistant", begun * 200_000))
    assert found[1][1] == begun * 200_000


def test_a_circle_of_messages_is_read_once() -> None:
    words = "x" * 100_000
    mapping: dict[str, Any] = {str(at): 0 for at in range(100_000)} | {
        "u": {"parent": "v", "message": message("user", words, "y")},
        "v": {"parent": "u", "message": message("assistant", words, "y")},
    }
    turns = shown_turns(mapping, "v", Counter())
    assert [(turn["role"], len(turn["content"])) for turn in turns] == [
        *(("user", 100_002), ("assistant", 100_002))
    ]


def test_what_one_side_said_in_many_messages_is_joined_once() -> None:
    """In no time: a copy of all before for each would take an hour."""
    said = (message("assistant", "x" * 1000) for _ in range(30_000))
    found, _ = shown(message("user", "Does it?"), *said)
    assert [len(words) for _, words, _ in found] == [8, 30_000 * 1002 - 2]


def test_more_turns_than_any_conversation_has_are_refused() -> None:
    with pytest.raises(Unusable, match="holds more than 1,000 turns"):
        shown(*(message(("user", "assistant")[n % 2], "a") for n in range(1001)))


def test_a_message_of_deepseek_is_its_fragments() -> None:
    def fragments(**said: str) -> dict[str, Any]:
        return {"fragments": [{"type": kind, "content": words} for kind, words in said.items()]}

    asked, answered = fragments(REQUEST="Which?"), fragments(THINK="Hm.", RESPONSE="A plover.")
    mapping = {
        "root": {"message": None, "parent": None},
        "1": {"message": asked, "parent": "root"},
        "2": {"message": answered, "parent": "1"},
    }
    assert shown_turns(mapping, None, Counter()) == [
        {"role": "user", "content": "Which?", "thinking": ""},
        {"role": "assistant", "content": "A plover.", "thinking": "Hm."},
    ]
