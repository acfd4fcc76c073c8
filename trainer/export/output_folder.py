"""The folder that a merged or exported model is written to."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import DoesNotFitError, SettingsError

GB = 10**9


@contextmanager
def complete_or_absent(output: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder to fill, which becomes `output` when the block ends without an error.

    Raises SettingsError when `output` holds something, DoesNotFitError when the disk is too small.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise SettingsError(f"--output {output}: is there already; name a new folder")
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        free = shutil.disk_usage(staging).free
        if free < needed_bytes:
            raise DoesNotFitError(
                f"--output {output}: needs {needed_bytes / GB:.1f} GB, its disk has "
                f"{free / GB:.1f} GB left; make room or name a folder on another one"
            )
        yield staging
        if output.is_dir():
            output.rmdir()
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
