"""The design page's map of the code, made from docstrings and imports; `--write` puts it there."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "design.md"
TRAINER = ROOT / "trainer"
BEGIN, END = "<!-- map: made by scripts/code_map.py -->\n", "<!-- end of map -->"
START = "trainer.job"


def wings() -> list[str]:
    """The wings in the order of allowed imports, as the page's own table names them."""
    table = PAGE.read_text(encoding="utf-8").partition("| wing |")[2].partition("\n\n")[0]
    return [name for row in re.findall(r"(?m)^\| (`[^|]*`) \|", table) for name in _names(row)]


def code_map() -> str:
    """Every file in the order of the wings, with the first sentence of its docstring."""
    lines = ["```", "trainer/"]
    for wing in wings():
        if (TRAINER / f"{wing}.py").exists():
            lines.append(_row(TRAINER / f"{wing}.py", 1))
            continue
        files = sorted((TRAINER / wing).rglob("*.py"), key=lambda path: (path.parent, path.name))
        lines.append(f"  {wing}/")
        folder = TRAINER / wing
        for path in (file for file in files if file.name != "__init__.py"):
            if path.parent != folder:
                folder = path.parent
                lines.append(f"    {folder.name}/")
            lines.append(_row(path, len(path.relative_to(TRAINER).parts)))
    way = " → ".join(f"`{module.removeprefix('trainer.')}`" for module in longest_way())
    lines += ["```", "", f"The longest way from `{START.removeprefix('trainer.')}.run` to any file"]
    lines += [f"is {len(longest_way()) - 1} imports: {way}.", ""]
    return "\n".join(lines)


def longest_way() -> list[str]:
    """Of the shortest ways from the job to each file by imports, the longest; by name if equal."""
    modules = {_module(path): path for path in sorted(TRAINER.rglob("*.py"))}
    ways = {START: [START]}
    queue = [START]
    for module in queue:
        for other in sorted(_imports(modules[module]) & modules.keys() - ways.keys()):
            ways[other] = [*ways[module], other]
            queue.append(other)
    return max(ways.values(), key=lambda way: (len(way), way))


def filled(page: str) -> str:
    """`page` with its map replaced by the present one."""
    return re.sub(
        re.escape(BEGIN) + ".*?" + re.escape(END),
        lambda _: BEGIN + code_map() + END,
        page,
        flags=re.DOTALL,
    )


def _names(row: str) -> list[str]:
    return [name.removesuffix(".py").rstrip("/") for name in re.findall(r"`([^`]*)`", row)]


def _row(path: Path, depth: int) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<!\bal\.)(?<=[.?!])\s|\n\s*\n", text)[0].replace("\n", " ").rstrip(".")
    return f"{'  ' * depth}{path.name:<28} {sentence}"


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(code_map(), end="")
