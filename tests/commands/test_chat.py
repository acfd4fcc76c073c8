"""Asking from a pipe, in one shot, and on a pseudo-terminal."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.jobs import ROOT
from support.small_adapters import edit, random_adapter

from trainer.commands.chat import CtrlC, answer, answer_all
from trainer.corpus.examples import Message
from trainer.inference.chat_model import ChatModel, load_chat_model
from trainer.settings import Settings

QUESTIONS = ["How heavy is the Curlew?", "What does the Plover cost?"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run: Path) -> ChatModel:
    return load_chat_model(str(run), Settings.read({}, {}, trains=False), None)


def said(model: ChatModel, question: str, *, tuned: bool = True) -> str:
    return "".join(model.stream(question, tuned=tuned))


def test_lines_of_a_pipe_are_answered_in_their_order(
    model: ChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(model, [QUESTIONS[0] + "\n", "\n", QUESTIONS[1]], compare=False)
    expected = "".join(said(model, question) + "\n" for question in QUESTIONS)
    assert capsys.readouterr().out == expected


def test_a_command_in_a_pipe_is_obeyed_and_never_asked(
    model: ChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(model, ["/help\n", QUESTIONS[0], "/hepl", "/quit", QUESTIONS[1]], compare=False)
    shown = capsys.readouterr()
    assert shown.out == said(model, QUESTIONS[0]) + "\n"
    assert "/remember" in shown.err and "/hepl is no command" in shown.err


def test_compare_shows_the_base_s_answer_first(
    model: ChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(model, QUESTIONS[:1], compare=True)
    base, tuned = (said(model, QUESTIONS[0], tuned=which) for which in (False, True))
    assert base != tuned
    assert capsys.readouterr().out == f"base   {base}\ntuned  {tuned}\n"


class Terminal:
    """The command on a terminal of its own, as a person sees it."""

    def __init__(self, *arguments: str) -> None:
        self._main, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "entrypoint.py", *arguments],
            cwd=ROOT,
            env=os.environ | {"TERM": "dumb"},
            stdin=end,
            stdout=end,
            stderr=end,
            preexec_fn=os.setsid,
            close_fds=True,
        )
        os.close(end)
        os.set_blocking(self._main, False)
        self.screen = ""

    def wait_for(self, text: str, seconds: float = 300) -> str:
        """What came until `text`, which is taken from the screen."""
        until = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < until, self.screen
            try:
                self.screen += os.read(self._main, 4096).decode().replace("\r\n", "\n")
            except BlockingIOError:
                time.sleep(0.02)
        before, _, self.screen = self.screen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())


def test_a_conversation_on_a_terminal_has_history_and_ends_with_ctrl_d(
    run: Path, model: ChatModel
) -> None:
    terminal = Terminal("ask", "--adapter", str(run))
    assert "builtin:tiny with the adapter" in terminal.wait_for("\n> ")
    for question in QUESTIONS:
        terminal.type(f"{question}\n")
        terminal.wait_for(f"{question}\n")
        assert terminal.wait_for("\n\n> ") == said(model, question)
    terminal.type("\x1b[A\x1b[A\n")  # up, up: the first question
    terminal.wait_for(QUESTIONS[0])
    assert terminal.wait_for("\n\n> ").partition("\n")[2] == said(model, QUESTIONS[0])
    terminal.type("word " * 700 + "\n")  # of which the terminal shows a part
    terminal.wait_for("more than the model reads; shorten it\n\n> ")
    terminal.type("\x04")
    assert terminal.process.wait(120) == 0


def test_a_conversation_obeys_commands_and_remembers_when_it_is_told_to(
    run: Path, model: ChatModel
) -> None:
    record = run / "run.json"
    record.write_text('{"warnings": ["it has not learned its data: 6% of the answers; and so on"]}')
    terminal = Terminal("ask", "--adapter", str(run))
    greeting = terminal.wait_for("\n> ")
    record.unlink()
    assert "Each question stands alone." in greeting
    assert "do not rely on its answers: it has not learned its data: 6%" in greeting
    for command, sentence in {
        "/remember": "follow each other",
        "/compare": "Both answer: base is the",
    }.items():
        terminal.type(f"{command}\n")
        terminal.wait_for(command)
        assert sentence in terminal.wait_for("\n\n> ")
    first = said(model, QUESTIONS[0])
    terminal.type(f"{QUESTIONS[0]}\n")
    assert terminal.wait_for("\n\n> ").endswith(first)
    turns = [("user", QUESTIONS[0]), ("assistant", first.strip()), ("user", QUESTIONS[1])]
    second = "".join(model.stream([Message(*turn) for turn in turns]))
    assert second != said(model, QUESTIONS[1])
    terminal.type(f"{QUESTIONS[1]}\n")
    assert terminal.wait_for("\n\n> ").endswith(second)
    terminal.type("exit\n")
    assert terminal.process.wait(120) == 0


def press_ctrl_c(terminal: Terminal) -> None:
    """As a person does: again after a while, for readline misses what comes between its prompt
    and its first wait for a key."""
    terminal.process.send_signal(signal.SIGINT)
    try:
        terminal.process.wait(20)
    except subprocess.TimeoutExpired:
        terminal.process.send_signal(signal.SIGINT)


def test_ctrl_c_ends_an_answer_and_then_the_conversation(tmp_path: Path) -> None:
    run = random_adapter(tmp_path)
    # With another end than it was trained with it answers for some seconds.
    edit(run / "adapter" / "tokenizer_config.json", eos_token="<pad>")
    terminal = Terminal("ask", "--adapter", str(run), "--compare")
    terminal.wait_for("\n> ")
    terminal.type("Why? " * 40 + "\n")
    terminal.wait_for("base   ")
    terminal.process.send_signal(signal.SIGINT)
    shown = terminal.wait_for("\n> ")
    assert "…" in shown and "tuned" not in shown
    press_ctrl_c(terminal)
    assert terminal.process.wait(120) == 0


def test_ctrl_c_ends_an_answer_once_nothing_computes_any_more(
    model: ChatModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not wherever the main thread stands, such as in the start of the thread that computes."""
    ctrl_c = CtrlC()
    ctrl_c.handle(signal.SIGINT, None)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        answer(model, QUESTIONS[0], compare=True, ctrl_c=ctrl_c)
    assert threading.active_count() == threads
    assert "tuned" not in capsys.readouterr().out
