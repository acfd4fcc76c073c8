"""The folder that a merged or exported model is written to."""

import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import DoesNotFitError, SettingsError
from trainer.storage.scratch import PRIVATE

GB = 10**9
_STAGING = ".partial-"
_TOKEN_BYTES = 8


@contextmanager
def complete_or_absent(output: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends without an error.

    Raises SettingsError when `output` holds something, DoesNotFitError when the disk is too small.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise SettingsError(f"--output {output}: is there already; name a new folder")
    if output.exists() and output.samefile(Path.cwd()):  # a shell would stand in one that is gone
        raise SettingsError(f"--output {output}: is the folder you are in; name a new one in it")
    _remove_leftovers(output)
    staging = output.with_name(output.name + _STAGING + secrets.token_hex(_TOKEN_BYTES))
    staging.mkdir(parents=True)
    mode = stat.S_IMODE(staging.stat().st_mode)
    staging.chmod(PRIVATE)  # in a folder of several users, none puts a link where a file comes
    try:
        free = shutil.disk_usage(staging).free
        if free < needed_bytes:
            raise DoesNotFitError(
                f"--output {output}: needs {needed_bytes / GB:.1f} GB, its disk has "
                f"{free / GB:.1f} GB left; make room or name a folder on another one"
            )
        yield staging
        staging.chmod(mode)
        if output.is_dir():
            output.rmdir()
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_leftovers(output: Path) -> None:
    """What a killed process began of it, by names that nobody else gives."""
    name = re.compile(re.escape(output.name + _STAGING) + rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
    beside = output.parent.iterdir() if output.parent.is_dir() else ()
    for folder in [found for found in beside if name.fullmatch(found.name)]:
        shutil.rmtree(folder, ignore_errors=True)
