"""How the turns of a conversation become text: the tokenizer's chat template, or a fallback.

A template is rendered with placeholders for the contents, once for each sequence of roles: what
it writes around them is the frame of every conversation of those roles.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.tokenization.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates write today's date. A run resumed tomorrow must see the same tokens, so it is
# always the day that the Llama 3 templates fall back to.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

FALLBACK_TEMPLATE = r"""
{{ bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '### Question:\n' + message['content'] + '\n\n' }}
{%- elif message['role'] == 'assistant' %}
{{- '### Answer:\n' + message['content'] + eos_token + '\n' }}
{%- else %}{{ message['content'] + '\n\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Answer:\n' }}{% endif -%}
""".strip()


def ensure_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Give `tokenizer` the fallback template if it has none, and say so; None if it has one.

    Saving the tokenizer then saves the template that the adapter was trained with.
    """
    if tokenizer.chat_template:
        return None
    tokenizer.chat_template = FALLBACK_TEMPLATE
    return "the tokenizer has no chat template; questions are worded as ### Question / ### Answer"


class ChatTemplate:
    """The text around contents, as one tokenizer's template writes it; keeps its renderings.

    Its methods raise DataError if the template refuses or leaves out a turn.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", special: SpecialTokens) -> None:
        self._tokenizer: Any = tokenizer
        self._special = special
        own = self._tokenizer.chat_template and self._tokenizer.get_chat_template()
        self._template: str = _FIXED_DATE + (own or FALLBACK_TEMPLATE)
        self._frames: dict[tuple[tuple[str, ...], bool], tuple[str, ...]] = {}

    def frame(self, roles: tuple[str, ...], generation: bool = False) -> tuple[str, ...]:
        """The template's text around the contents of `roles`: one more string than roles.

        With `generation` the last one ends with the generation prompt.
        """
        asked = (roles, generation)
        if asked not in self._frames:
            self._frames[asked] = self._rendered_frame(roles, generation)
        return self._frames[asked]

    def answer_header(self, roles: tuple[str, ...], before: str) -> tuple[str, str]:
        """What opens an answer after `roles`: the part given at inference, then the rest.

        `before` is the template's text in front of it in a finished conversation. The given part
        is the template's generation prompt even where the template words a finished turn
        differently: inference must find the tokens that were trained.
        """
        if not roles:
            return before, ""
        given = self.frame(roles, generation=True)[-1]
        if roles[-1] == "assistant":
            given = given.removeprefix(self.answer_end(roles))
        return given, before.removeprefix(given) if before.startswith(given) else ""

    def answer_end(self, roles: tuple[str, ...]) -> str:
        """What ends the answer that closes `roles`: up to the template's own token, else eos."""
        tail = self.frame(roles)[-1]
        found = self._special.first_in(tail)
        if found is None or found.group() == self._tokenizer.bos_token:
            return str(self._tokenizer.eos_token)
        return tail[: found.end()]

    def _rendered_frame(self, roles: tuple[str, ...], generation: bool) -> tuple[str, ...]:
        from jinja2 import TemplateError

        contents = [f"\ue000{at}\ue001" for at in range(len(roles))]
        turns = [{"role": role, "content": c} for role, c in zip(roles, contents, strict=True)]
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=generation,
            )
        except TemplateError as error:
            raise DataError(
                f"the tokenizer's chat template refuses a conversation of {_listed(roles)} "
                f"({error}); change the data or the base model"
            ) from error
        if re.findall("\ue000\\d+\ue001", text) != contents:
            raise DataError(
                f"the tokenizer's chat template leaves out a turn of {_listed(roles)}; "
                "merge that turn into another one or change the base model"
            )
        return tuple(re.split("\ue000\\d+\ue001", text))


def _listed(roles: Sequence[str]) -> str:
    return ", ".join(roles[:6]) + (", …" if len(roles) > 6 else "")
