"""What somebody is told who has set nothing yet; libraries are imported behind it, not before."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from trainer.errors import Interrupted
from trainer.monitoring.counting import import_in_sight
from trainer.runtime import log
from trainer.runtime.wording import this_command

WELCOME = """\
This fine-tunes a language model on your own questions and answers, or documents.
It needs two places, as variables, as flags or in a file that is named by --env-file:
  QLORA_DATA_URI     what it shall learn: a folder, a file or s3://bucket/prefix/
  QLORA_OUTPUT_URI   where the result shall be: a folder or s3://bucket/prefix/
and, without a GPU, a base model that is small:
  QLORA_BASE_MODEL   builtin:tiny to try it, or one of huggingface.co
Behind {command}:
  inspect   shows what the data becomes, plan how long it takes, --help the rest
  init      asks for all of it in four questions, looks at the data and writes the file
"""
T = TypeVar("T")


def welcome() -> bool:
    """Say what is needed and offer to ask for it; whether that was wanted."""
    click.echo(WELCOME.format(command=this_command()))
    return answered(lambda: click.confirm("Shall it ask now?", default=True))


def ask_for_settings(file: Path) -> Path | None:
    """`init.ask_for_settings`."""
    log.set_up("text", "WARNING", sys.stderr)
    import_in_sight("trainer.commands.init")
    from trainer.commands import init

    return answered(lambda: init.ask_for_settings(file))


def answered(ask: Callable[[], T]) -> T:
    """What `ask` gives, where Ctrl-C and the end of the input end it in a sentence."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return ask()
    except click.Abort:
        raise Interrupted(f"nothing was written; `{this_command()} init` asks again") from None
    finally:
        signal.signal(signal.SIGINT, before)
