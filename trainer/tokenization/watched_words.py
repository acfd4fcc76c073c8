"""What a chat template looks for in contents: where a content has none of it, the template writes
the same around it as around any other."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import nodes

_METHODS = re.compile(
    "r?split|r?partition|startswith|endswith|replace|r?find|r?index|count|remove(pre|suf)fix|[lr]?strip"
)


def is_plain(parts: Collection[str], wholes: Collection[str]) -> Callable[[str], bool]:
    """Whether a content holds nothing that a template looks for: none of the words that it splits,
    replaces or searches at, none that it compares with, no white space to strip, and something."""
    pattern = re.compile("|".join(map(re.escape, sorted(parts))) or "(?!)")

    def plain(content: str) -> bool:
        return (
            bool(content)
            and not (content[0].isspace() or content[-1].isspace())
            and content not in wholes
            and pattern.search(content) is None
        )

    return plain


def watched(tree: "nodes.Template") -> tuple[set[str], set[str]]:
    """(words looked for inside of a text, those that a text is compared with)."""
    from jinja2 import nodes

    parts: set[str] = {"<think>"}
    wholes: set[str] = set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and _METHODS.fullmatch(call.node.attr):
            words = set(_words(call.args))
            if call.node.attr.endswith("strip"):  # white space at the ends is looked for anyway
                words = {word for word in words if word.strip()}
            parts |= words
    for used in tree.find_all(nodes.Filter):
        if used.name == "replace":
            parts.update(_words(used.args))
    for comparison in tree.find_all(nodes.Compare):
        others = [operand.expr for operand in comparison.ops]
        wholes.update(_words([comparison.expr, *others]))
        if any(operand.op in ("in", "notin") for operand in comparison.ops):
            parts.update(_words([comparison.expr]))
    return parts, wholes


def _words(expressions: list) -> Iterator[str]:  # type: ignore[type-arg]  # of jinja2's nodes
    from jinja2 import nodes

    for expression in expressions:
        one = isinstance(expression, nodes.Const)
        for constant in [expression] if one else expression.find_all(nodes.Const):
            if isinstance(constant.value, str) and constant.value:
                yield constant.value
