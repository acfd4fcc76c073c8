"""The table of docs/settings.md, made from `trainer.settings`; `--write` puts it there."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from trainer.settings import options

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- settings: made by scripts/settings_table.py -->\n", "<!-- end of settings -->"


def table() -> str:
    """One Markdown row for each setting."""
    rows = [f"| `{o.env}` | {o.shown_default} | {o.meaning} |\n" for o in options()]
    return "".join(["| variable | default | meaning |\n|---|---|---|\n", *rows])


def filled(page: str) -> str:
    """`page` with its table replaced by the present one."""
    return re.sub(
        re.escape(BEGIN) + ".*?" + re.escape(END),
        lambda _: BEGIN + table() + END,
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
