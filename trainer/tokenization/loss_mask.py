"""Which words of a record are trained: a completion, the assistant's answers and their ends."""

from collections.abc import Sequence

from trainer.corpus.examples import Completion, Conversation, Message
from trainer.tokenization.chat_template import ChatTemplate
from trainer.tokenization.special_tokens import Span


def spans_of(
    example: Completion | Conversation, template: ChatTemplate, eos_token: str
) -> list[Span]:
    """What is given and what is trained, in order; ends with the last trained token.

    Raises DataError if the chat template refuses or leaves out a turn.
    """
    if isinstance(example, Completion):
        return [
            Span(example.prompt, trained=False, is_data=True),
            Span(example.completion, trained=True, is_data=True),
            Span(eos_token, trained=True),
        ]
    return _conversation_spans(example.messages, template)


def _conversation_spans(messages: Sequence[Message], template: ChatTemplate) -> list[Span]:
    roles = tuple(message.role for message in messages)
    between = template.frame(roles)
    spans: list[Span] = []
    before = between[0]
    for at, message in enumerate(messages):
        content, after = message.content.strip(), between[at + 1]
        if message.role == "assistant":
            header, trained_header = template.answer_header(roles[:at], before)
            end = template.answer_end(roles[: at + 1])
            spans += [Span(header, trained=False), Span(trained_header, trained=True)]
            spans += [Span(content, trained=True, is_data=True), Span(end, trained=True)]
            before = after.removeprefix(end)
        else:
            spans += [Span(before, trained=False), Span(content, trained=False, is_data=True)]
            before = after
    while not spans[-1].trained:  # turns after the last answer carry no loss
        spans.pop()
    return spans
