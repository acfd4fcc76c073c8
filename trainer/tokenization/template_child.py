"""The child process that renders chat templates, which are programs of strangers.

It has a limit of memory, and reaches no file, no network and no other process where the kernel can
forbid it (see `confinement`). A request is a line of JSON, `[what, number, template, variables]`:
the template by its number, its text only where it is new, and variables for each text that is
wanted. The answer is a line, `["given", what was asked for]` or `["refused", reason]`.
"""

import json
import os
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trainer.corpus import confinement
from trainer.tokenization.watched_words import watched

LONGEST_REASON = 1000


class Generation(Extension):
    """`{% generation %}`, with which templates say what of a conversation a model wrote."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Macro) -> str:
        return caller()


def environment() -> Environment:
    """As transformers makes it."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = _as_json
    made.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return made


def _as_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(how: str) -> str:
    return datetime.now().strftime(how)


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return environment().from_string(template)


def _given(what: str, template: str, variables: list[dict[str, Any]]) -> Any:
    if what == "watched":
        return [sorted(words) for words in watched(environment().parse(template))]
    return [_compiled(template).render(**each) for each in variables]


def answer(what: str, template: str, variables: list[dict[str, Any]]) -> list[Any]:
    """A request's, as above. Raises nothing."""
    try:
        return ["given", _given(what, template, variables)]
    except Exception as error:  # a template refuses turns by errors of its own
        return ["refused", str(error)[:LONGEST_REASON] or type(error).__name__]


def main(memory_bytes: int) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    confinement.limit(memory_bytes)
    confinement.confine()
    known: list[str] = []
    for line in sys.stdin.buffer:
        what, number, template, variables = json.loads(line)
        known += [template] if template is not None else []
        answers.write(encoded(answer(what, known[number], variables)))
        answers.flush()


def encoded(record: list[Any]) -> bytes:
    """A line; half of a surrogate pair, which texts may hold, as JSON's reader takes it."""
    return (
        json.dumps(record, ensure_ascii=False, default=str).encode(errors="surrogatepass") + b"\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
