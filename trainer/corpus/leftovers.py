"""What programs leave beside the files of a person, by its name: nobody means it as data.

Files that a dot hides are another matter: somebody may miss one, so it is named.
"""

import re
from pathlib import Path, PurePosixPath

_FOLDERS = {
    *("__macosx", ".ipynb_checkpoints", "__pycache__", ".git", ".svn", ".hg", ".idea", ".vscode"),
    *(".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", "$recycle.bin", "@eadir"),
    *("system volume information", "node_modules"),
}
_TRASH = re.compile(r"\.trash(-\d+)?")
_FILES = {"thumbs.db", "desktop.ini", ".ds_store", "dataset_info.json", "dataset_dict.json"}
# `prepare` writes them beside its questions.
_FILES |= {"prepare.html", "prepare.json", "known_words.json"}
_PREFIXES = ("._", "~$", ".~lock.")
# `datasets` writes this beside the Arrow files of `save_to_disk`; elsewhere it may be data.
_STATE = "state.json"


def is_leftover(name: str, path: Path) -> bool:
    """Whether `name`, relative and '/'-separated, is one; `path` is where the file lies."""
    *folders, last = PurePosixPath(name.casefold()).parts
    return (
        last in _FILES
        or last.startswith(_PREFIXES)
        or any(folder in _FOLDERS or _TRASH.fullmatch(folder) for folder in folders)
        or (last == _STATE and (path.parent / "dataset_info.json").exists())
    )


def is_hidden(name: str) -> bool:
    """Whether a dot hides the file, or a folder of it, from whoever looks at the data."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
