"""The README's settings table, made from `trainer.settings`; `--write` puts it there."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from trainer.settings import options

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by scripts/settings_table.py -->\n", "<!-- end of settings -->"


def table() -> str:
    """One Markdown row for each setting."""
    rows = [f"| `{o.env}` | {o.shown_default} | {o.meaning} |\n" for o in options()]
    return "".join(["| variable | default | meaning |\n|---|---|---|\n", *rows])


def filled(readme: str) -> str:
    """`readme` with its table replaced by the present one."""
    return re.sub(
        re.escape(BEGIN) + ".*?" + re.escape(END),
        lambda _: BEGIN + table() + END,
        readme,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
