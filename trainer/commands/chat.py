"""Questions to a fine-tuned model from the command line, a terminal or a pipe."""

import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from types import FrameType

import click

from trainer.commands.dialogue import Dialogue, remembering
from trainer.corpus.examples import Message
from trainer.errors import JobError
from trainer.evaluation.verdict import caution
from trainer.inference.chat_model import ChatModel
from trainer.runtime.last_words import shown
from trainer.runtime.log import for_terminal

GREETING = """{base} with the adapter {adapter}. {remembering}
/help shows what else there is, Ctrl-C ends an answer, Ctrl-D the conversation."""
Asked = str | Sequence[Message]


class CtrlC:
    """Ctrl-C: ends the answer that is made, or the conversation where a question is awaited.

    While an answer is made it only sets a flag. Raised there, KeyboardInterrupt comes wherever
    the main thread stands: in the start of the thread that computes, say, which nobody then waits
    for, and an interpreter that ends while it computes aborts.
    """

    def __init__(self) -> None:
        self._is_pressed = False
        self._is_awaiting = False

    def is_pressed(self) -> bool:
        """Whether it was, since the last question was typed."""
        return self._is_pressed

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self._is_pressed = True
        if self._is_awaiting:
            self._is_awaiting = False  # pressed twice, it is one end
            raise KeyboardInterrupt

    def next_question(self) -> str | None:
        """What was typed; None for the end of the conversation."""
        try:
            self._is_awaiting = True
            return input("\n> ")
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return None
        finally:
            self._is_awaiting = self._is_pressed = False


def answer_all(model: ChatModel, questions: Iterable[str], *, compare: bool) -> None:
    """One answer after the other, in the order of the questions that are not empty; a line that is
    a command does here what it does in a conversation, and what it says is no answer."""
    dialogue = Dialogue(remembers=False, compares=compare)
    for line in map(str.strip, questions):
        if (sentence := dialogue.obey(line)) is not None:
            click.echo(sentence, err=True)
        elif line:
            said = answer(model, dialogue.asked(line), compare=dialogue.compares)
            dialogue.answered(line, said)
        if dialogue.is_over:
            return


def answer(model: ChatModel, asked: Asked, *, compare: bool, ctrl_c: CtrlC | None = None) -> str:
    """Print the answer as it is made, and give it; the base's is printed before it, to `compare`.

    Raises KeyboardInterrupt when `ctrl_c` was pressed meanwhile, once nothing computes any more.
    """
    ctrl_c = ctrl_c or CtrlC()
    if compare:
        click.secho("base   ", dim=True, nl=False)
        _stream(model, asked, tuned=False, ctrl_c=ctrl_c)
        click.secho("tuned  ", bold=True, nl=False)
    return _stream(model, asked, tuned=True, ctrl_c=ctrl_c)


def _stream(model: ChatModel, asked: Asked, *, tuned: bool, ctrl_c: CtrlC) -> str:
    said = ""
    with closing(model.stream(asked, tuned=tuned, is_ended=ctrl_c.is_pressed)) as pieces:
        for piece in pieces:
            said += piece
            click.echo(for_terminal(piece), nl=False)
    if ctrl_c.is_pressed():
        raise KeyboardInterrupt
    click.echo()
    return said


def converse(model: ChatModel, adapter: str, *, compare: bool) -> None:
    """Ask and answer on a terminal until the end of the input."""
    import readline  # noqa: F401  (imported, it gives `input` its editing and history)

    dialogue = Dialogue(remembers=model.remembers, compares=compare)
    names = {"base": model.base, "adapter": adapter, "remembering": remembering(model.remembers)}
    click.secho(for_terminal(GREETING.format(**names)), dim=True)
    if (said := caution(model.warnings)) is not None:
        click.secho(for_terminal(said), bold=True)
    ctrl_c = CtrlC()
    # The job's own handler ends the process; here an answer ends, and the next can be asked.
    signal.signal(signal.SIGINT, ctrl_c.handle)
    while not dialogue.is_over and (line := ctrl_c.next_question()) is not None:
        try:
            _take(model, line.strip(), dialogue, ctrl_c)
        except KeyboardInterrupt:
            click.secho(" …", dim=True)
        except JobError as error:  # such as a question that is too long
            click.echo(f"error: {shown(error)}", err=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again, it must not kill a good end


def _take(model: ChatModel, line: str, dialogue: Dialogue, ctrl_c: CtrlC) -> None:
    """One line: a command, a question or nothing."""
    if not line:
        return
    if (sentence := dialogue.obey(line)) is not None:
        click.secho(sentence, dim=True)
        return
    said = answer(model, dialogue.asked(line), compare=dialogue.compares, ctrl_c=ctrl_c)
    dialogue.answered(line, said)


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
