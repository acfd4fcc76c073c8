"""Templates: text as it is, pages with every value escaped."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from trainer.runtime.templates import render

HOSTILE = """<b> & "two" 'one'"""


def template(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_page_escapes_every_value_once_and_nothing_of_its_own(tmp_path: Path) -> None:
    page = template(
        tmp_path,
        "page.html.jinja",
        "{% macro cell(text) %}<td>{{ text }}</td>{% endmacro %}"
        "<p>{{ text }}</p>{{ cell(text) }}{% for one in [text] %}{{ one }}{% endfor %}\n",
    )
    escaped = "&lt;b&gt; &amp; &quot;two&quot; &#x27;one&#x27;"
    assert render(page, text=HOSTILE) == f"<p>{escaped}</p><td>{escaped}</td>{escaped}\n"


def test_what_is_no_page_is_not_escaped(tmp_path: Path) -> None:
    card = template(tmp_path, "card.md.jinja", "{{ text }}{% raw %}{{ .Go }}{% endraw %}\n")
    assert render(card, text=HOSTILE) == HOSTILE + "{{ .Go }}\n"


def test_a_value_is_never_a_template(tmp_path: Path) -> None:
    card = template(tmp_path, "card.md.jinja", "{{ text }}")
    assert render(card, text="{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_a_file_beside_it_is_included_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text("a > b { color: red }\n")
    page = template(tmp_path, "page.html.jinja", '<style>{% include "style.css" %}</style>')
    assert render(page) == "<style>a > b { color: red }\n</style>"


def test_a_gap_is_an_error_and_not_an_empty_place(tmp_path: Path) -> None:
    card = template(tmp_path, "card.md.jinja", "{{ text.of_another_name }}")
    with pytest.raises(UndefinedError, match="of_another_name"):
        render(card, text="")
