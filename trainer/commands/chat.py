"""Questions to a bot from the command line, a terminal or a pipe."""

import signal
import sys
from collections.abc import Iterable
from contextlib import closing

import click

from trainer.errors import JobError
from trainer.inference.chat_model import ChatModel

HELP = """{base} with the adapter {adapter}. Each question stands alone.
Up and down go through earlier questions, Ctrl-C ends an answer, Ctrl-D the conversation."""


def answer_all(bot: ChatModel, questions: Iterable[str], *, compare: bool) -> None:
    """One answer after the other, in the order of the questions that are not empty."""
    for question in map(str.strip, questions):
        if question:
            say(bot, question, compare=compare)


def say(bot: ChatModel, question: str, *, compare: bool) -> None:
    """Print the answer as it is made; the base's before it, to `compare`."""
    if compare:
        click.secho("base   ", dim=True, nl=False)
        _stream(bot, question, tuned=False)
        click.secho("tuned  ", bold=True, nl=False)
    _stream(bot, question, tuned=True)


def _stream(bot: ChatModel, question: str, *, tuned: bool) -> None:
    with closing(bot.stream(question, tuned=tuned)) as pieces:
        for piece in pieces:
            click.echo(piece, nl=False)
    click.echo()


def converse(bot: ChatModel, adapter: str, *, compare: bool) -> None:
    """Ask and answer on a terminal until the end of the input."""
    import readline  # noqa: F401  (imported, it gives `input` its editing and history)

    click.secho(HELP.format(base=bot.base, adapter=adapter), dim=True)
    # The job's own handler ends the process; here an answer ends, and the next can be asked.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while (question := _asked()) is not None:
        try:
            answer_all(bot, [question], compare=compare)
        except KeyboardInterrupt:
            click.secho(" …", dim=True)
        except JobError as error:  # such as a question that is too long
            click.echo(f"error: {error}", err=True)


def _asked() -> str | None:
    try:
        return input("\n> ")
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
