"""Settings in a file, `KEY=VALUE` a line, as `docker run --env-file` and Compose read them too."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path

from trainer.errors import SettingsError
from trainer.options import unquoted
from trainer.runtime.regular_files import open_regular, write_over

_LARGEST_BYTES = 1 << 20
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A file that somebody else wrote may say where a result goes, and not which code runs here, as
# PYTHONPATH, LD_PRELOAD and a file of AWS with a `credential_process` do.
_SETTING = re.compile(
    r"(?:QLORA|AWS|HF|HUGGING_FACE|OPENAI|WANDB|MLFLOW_(?:TRACKING|EXPERIMENT|RUN|S3))_[A-Z0-9]\w*"
    r"|(?:https?|all|no)_proxy|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|NCCL_(?:SOCKET_IFNAME|DEBUG|P2P_DISABLE|IB_DISABLE)"
    r"|(?:TOKENIZERS|TRANSFORMERS)_[A-Z]\w*|TZ|LANG|LC_\w+|(?:NO|FORCE)_COLOR|COLUMNS",
    re.ASCII | re.IGNORECASE,
)
_NAMES_CODE = {
    "AWS_CONFIG_FILE",
    "AWS_DATA_PATH",
    "AWS_SHARED_CREDENTIALS_FILE",
    "HF_MODULES_CACHE",
}
_MEANS_MORE = re.compile(r"[\s\"#$\\`]")  # to one of those that read it, unless in quotes


def load_env_file(path: Path) -> list[str]:
    """Set what the file at `path` says and the environment does not; the names of what is no
    setting of this program, which is left out. Raises SettingsError."""
    found = read_env_file(path)
    for name, value in found.items():
        if _is_setting(name) and not os.environ.get(name):
            os.environ[name] = value
    return [name for name in found if not _is_setting(name)]


def _is_setting(name: str) -> bool:
    return _SETTING.fullmatch(name) is not None and name not in _NAMES_CODE


def read_env_file(path: Path) -> dict[str, str]:
    """Its variables; lines that are empty or begin with # say nothing. Raises SettingsError."""
    try:
        with _opened(path) as file:
            read = file.read(_LARGEST_BYTES + 1)
        if len(read) > _LARGEST_BYTES:
            raise ValueError("too large")
        lines = read.decode("utf-8-sig").splitlines()  # as Notepad writes it too
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8, or has more than a MiB"
        raise SettingsError(f"--env-file {path}: {reason}; `init` writes one") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if not separator or not _KEY.fullmatch(name) or "\0" in value:
            # Without its words: they may be a secret.
            raise SettingsError(
                f"{path}:{number}: this line is not KEY=VALUE, without spaces; correct it"
            )
        found[name] = unquoted(value)
    return found


def _opened(path: Path) -> BufferedReader:
    """Also what a shell's `<(…)` gives, which is a pipe that somebody writes to already; one that
    nobody writes to is empty."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        return open_regular(path)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(pipe, True)
    return open(pipe, "rb")  # noqa: PTH123 - of what is open already


def write_env_file(path: Path, values: Mapping[str, str], comments: Sequence[str] = ()) -> None:
    """`values` that any of its readers takes for the same. Raises SettingsError where none can be
    written so, OSError where the file cannot be."""
    lines = [f"# {comment}\n" for comment in comments]
    lines += [f"{name}={_written(name, value)}\n" for name, value in values.items()]
    write_over(path, "".join(lines).encode())


def _written(name: str, value: str) -> str:
    if "'" in value or len(value.splitlines()) > 1:
        raise SettingsError(f"{name}={value!r}: no file carries a quote or a line end; rename it")
    return f"'{value}'" if _MEANS_MORE.search(value) else value
