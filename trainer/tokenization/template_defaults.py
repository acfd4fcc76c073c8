"""What a published template does by itself: whether an answer begins with a thought, and its system
prompt.

Both are written around the base's own template, so that whatever loads the tokenizer words a
question as the run did: `ask`, transformers, vLLM, llama.cpp.
"""

import json
import re

_THINKING = re.compile(
    r"\{%- if enable_thinking is not defined %\}\{%- set enable_thinking = (true|false) %\}"
    r"\{%- endif %\}"
)
_SYSTEM_ROLES = ["system", "developer"]


def thinks_by_default(template: str) -> bool:
    """Whether `with_thinking` has said that answers begin with a thought."""
    found = _THINKING.search(template)
    return found is not None and found[1] == "true"


def with_thinking(template: str, thinks: bool) -> str:
    """`template`, where it is not told, asks for answers that begin with a thought, or without."""
    value = "true" if thinks else "false"
    default = (
        f"{{%- if enable_thinking is not defined %}}{{%- set enable_thinking = {value} %}}"
        "{%- endif %}"
    )
    return default + _THINKING.sub("", template)


def with_system_prompt(template: str, prompt: str, has_system: bool) -> str:
    """`template` gives conversations without a system turn this one. Where it has no place for a
    system turn, that and any other stands in the first question from now on."""
    words = _literal(prompt)
    if has_system:
        return (
            f"{{%- if messages[0]['role'] not in {_SYSTEM_ROLES} %}}"
            f"{{%- set messages = [{{'role': 'system', 'content': {words}}}] + messages %}}"
            "{%- endif %}" + template
        )
    return (
        f"{{%- set system = {words} %}}{{%- if messages[0]['role'] in {_SYSTEM_ROLES} %}}"
        "{%- set system = messages[0]['content'] %}{%- set messages = messages[1:] %}{%- endif %}"
        "{%- set messages = [{'role': messages[0]['role'], 'content': "
        "system + '\\n\\n' + messages[0]['content']}] + messages[1:] %}" + template
    )


def with_opening(template: str, own: str, trained: str) -> str:
    """`template` opens an answer as it was trained, where its `own` generation prompt differs."""
    return (
        "{%- set worded %}{{ '' }}"
        + template
        + "{{ '' }}{% endset %}"
        + f"{{%- if add_generation_prompt and worded.endswith({_literal(own)}) %}}"
        + f"{{{{ worded[:-{len(own)}] + {_literal(trained)} }}}}"
        + "{%- else %}{{ worded }}{%- endif %}"
    )


def _literal(text: str) -> str:
    """As a string of Jinja's, which reads escapes as Python does."""
    return json.dumps(text, ensure_ascii=False)
