"""What the child makes of a template is what transformers does; it reaches nothing else."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from trainer.tokenization.template_child import answer
from trainer.tokenization.template_process import Refused, rendered

TURNS = [{"role": "user", "content": "Why\n?"}, {"role": "assistant", "content": "So é."}]
LIKE_THERE = [
    "{% for m in messages %}\n  {%- if loop.last %}{{ m }}{% break %}{% endif %}\n{% endfor %}\n",
    "{{ messages|tojson }} {{ messages|tojson(indent=2, sort_keys=true) }}{{ '<é>'|tojson }}",
    "a{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}\n",
    "{% set n = namespace(a=1) %}{% for i in [1, 2] %}{% set n.a = n.a * 2 %}{% endfor %}{{ n.a }}",
    "{{ strftime_now('%Y')|length }}{{ dict(a=1) }}{{ tools is none }}{{ documents is none }}",
    "{{ messages[0].content.split('\\n') }}{{ missing }}{{ 7 // 2 ** 1 }}{{ '%s' % 3 }}",
]
REFUSED_THERE = [
    "{{ raise_exception('no\x1b such turn') }}",
    "{% for %}",
    "{{ ().__class__.__mro__[1].__subclasses__() }}",
    "{% include '/etc/passwd' %}",
    "{{ messages.append(1) }}",
    "{{ messages['a'] + 1 }}",
    "{{ 1 // 0 }}",
]


@pytest.mark.parametrize("template", LIKE_THERE)
def test_a_text_is_what_transformers_gives(template: str) -> None:
    expected, _ = render_jinja_template([TURNS], chat_template=template)
    given: dict[str, Any] = {"messages": TURNS, "tools": None, "documents": None}
    assert rendered(template, given) == expected


@pytest.mark.parametrize("template", REFUSED_THERE)
def test_what_is_an_error_there_is_refused_here(template: str) -> None:
    with pytest.raises(Exception) as there:
        render_jinja_template([TURNS], chat_template=template)
    with pytest.raises(Refused) as here:
        rendered(template, {"messages": TURNS})
    assert str(here.value) == str(there.value)
    assert answer("render", template, [{"messages": TURNS}]) == ["refused", str(there.value)]
