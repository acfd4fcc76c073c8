"""Run every cell of a notebook as Jupyter and Colab would; stop with 1 at the first that fails.

python tests/support/run_notebook.py examples/colab.ipynb
"""

import json
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell


def main(path: str) -> int:
    shell = InteractiveShell.instance()
    for cell in json.loads(Path(path).read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        shell.user_ns["_exit_code"] = 0  # of the last line that begins with "!"
        result = shell.run_cell("".join(cell["source"]), store_history=True)
        if not result.success or shell.user_ns["_exit_code"]:
            print(f"{path}: {cell['id']} failed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
