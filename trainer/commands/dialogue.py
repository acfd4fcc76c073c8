"""A conversation with a model: what was said so far, and the lines that are commands."""

import re
from dataclasses import dataclass, field

from trainer.corpus.examples import Message
from trainer.inference.reply import CUT

COMMANDS = """\
/compare      the base model answers too, as it was, before the tuned one; or no longer
/remember     questions follow each other, or each stands alone
/new          forget what was said
/system TEXT  a system prompt; without TEXT yours is taken away
/quit         end it, as do exit, quit and Ctrl-D
Up and down go through earlier questions, Ctrl-C ends an answer. One that ends with … was cut."""

BOTH = "Both answer: base is the model as it was, which knows nothing of your data, tuned is yours."
_ENDINGS = ("/quit", "/exit", "quit", "exit")
_COMMAND = re.compile(r"/[a-z]+")


@dataclass
class Dialogue:
    """What the next question is asked with."""

    remembers: bool
    compares: bool = False
    system: str = ""
    said: list[Message] = field(default_factory=list)
    is_over: bool = False

    def asked(self, question: str) -> tuple[Message, ...]:
        """All that the model is given for an answer to `question`."""
        system = (Message("system", self.system),) if self.system else ()
        return (*system, *self.said, Message("user", question))

    def answered(self, question: str, answer: str) -> None:
        """Keep both for the next question, where what was said is remembered."""
        if self.remembers:
            spoken = answer.removesuffix(CUT).strip()
            self.said += [Message("user", question), Message("assistant", spoken)]

    def obey(self, line: str) -> str | None:
        """Do what `line` says if it is a command, and the sentence that answers it; None for a
        question."""
        word, _, rest = line.partition(" ")
        if line.lower() in _ENDINGS:
            self.is_over = True
            return ""
        if line.lower() in ("help", "/?", "/help"):
            return COMMANDS
        if word == "/system":
            self.system = rest.strip()
            return (
                "The system prompt is yours now." if self.system else "No system prompt of yours."
            )
        if not _COMMAND.fullmatch(line):
            return None
        if line == "/compare":
            self.compares = not self.compares
            return BOTH if self.compares else "The tuned model alone answers."
        if line == "/remember":
            self.remembers = not self.remembers
            self.said.clear()
            return remembering(self.remembers)
        if line == "/new":
            self.said.clear()
            return "What was said is forgotten."
        return f"{line} is no command; /help shows them."


def remembering(remembers: bool) -> str:
    """Whether questions follow each other, in a sentence."""
    return "Questions follow each other." if remembers else "Each question stands alone."
