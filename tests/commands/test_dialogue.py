"""Lines that are commands, and what a question is asked with."""

import pytest

from trainer.commands.dialogue import COMMANDS, Dialogue
from trainer.corpus.examples import Message
from trainer.inference.chat_model import CUT


@pytest.mark.parametrize("line", ["/quit", "exit", "quit", "/exit", "Exit"])
def test_words_that_end_it(line: str) -> None:
    dialogue = Dialogue(remembers=False)
    assert dialogue.obey(line) is not None
    assert dialogue.is_over


@pytest.mark.parametrize("line", ["/help", "help"])
def test_help_names_every_command(line: str) -> None:
    assert Dialogue(remembers=False).obey(line) == COMMANDS
    for command in ("/compare", "/remember", "/new", "/system", "/quit"):
        dialogue = Dialogue(remembers=False)
        assert command in COMMANDS
        assert "is no command" not in (dialogue.obey(command) or "")


@pytest.mark.parametrize("line", ["Why?", "exit the building", "/etc/hosts is what?", "quit how?"])
def test_what_is_a_question_is_asked(line: str) -> None:
    dialogue = Dialogue(remembers=False)
    assert dialogue.obey(line) is None
    assert not dialogue.is_over


def test_a_command_that_does_not_exist_is_no_question() -> None:
    assert Dialogue(remembers=False).obey("/hepl") == "/hepl is no command; /help shows them."


def test_what_was_said_is_given_again_only_where_it_is_remembered() -> None:
    dialogue = Dialogue(remembers=False)
    dialogue.answered("Why?", "So.")
    assert dialogue.asked("And?") == (Message("user", "And?"),)
    assert dialogue.obey("/remember") == "Questions follow each other."
    dialogue.answered("Why?", f"So{CUT}")
    before = (Message("user", "Why?"), Message("assistant", "So"))
    assert dialogue.asked("And?") == (*before, Message("user", "And?"))
    dialogue.obey("/new")
    assert dialogue.asked("And?") == (Message("user", "And?"),)
    assert dialogue.obey("/remember") == "Each question stands alone."


def test_a_system_prompt_stands_first_until_it_is_taken_away() -> None:
    dialogue = Dialogue(remembers=False)
    dialogue.obey("/system Be brief.")
    assert dialogue.asked("Why?")[0] == Message("system", "Be brief.")
    dialogue.obey("/system")
    assert dialogue.asked("Why?") == (Message("user", "Why?"),)


def test_comparing_is_switched_on_and_off() -> None:
    dialogue = Dialogue(remembers=False)
    dialogue.obey("/compare")
    assert dialogue.compares
    dialogue.obey("/compare")
    assert not dialogue.compares
