"""Texts for people and other programs, from jinja2 templates that lie beside their module."""

import html
from pathlib import Path
from typing import Any

HTML = ".html.jinja"


def render(template: Path, **values: Any) -> str:
    """The text of `template` with `values`; in a `.html.jinja` every value is escaped.

    It may include files of its own folder. Raises jinja2.UndefinedError for a name that was not
    given: a gap in a report would say that there was nothing to report.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    is_html = template.name.endswith(HTML)
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=is_html,
        finalize=_escaped if is_html else None,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)


class _Markup(str):
    """What jinja2 takes for markup, which it does not escape again."""

    def __html__(self) -> str:
        return str(self)


def _escaped(value: Any) -> Any:
    """Quotes as the standard library spells them, whatever version of jinja2 renders the page."""
    return value if hasattr(value, "__html__") else _Markup(html.escape(str(value)))
