"""What must never be shown, and `redact`, which every log line and last word passes.

Secret are: values of variables with such a name, user info in URLs, what the files hold that
credentials are read from, and whatever stands behind such a name in a text: credentials of a role
come over the network and are in no variable.
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

HIDDEN = "***"
_SHORTEST = 6  # shorter values would blank out ordinary words
_SHORTEST_UNMISTAKABLE = 16
_LARGEST_FILE = 1 << 16
# Not TOKENS nor TOKENIZER, whose values are counts and words.
_NAME = re.compile(r"SECRET|TOKEN(?![A-Z])|PASSW|API_KEY|ACCESS_KEY|PRIVATE_KEY")
_FILE_NAME = re.compile(r"_(FILE|PATH)$")
_FILES = {  # where the libraries look, and where they look without that variable
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
    "HF_TOKEN_PATH": "~/.cache/huggingface/token",
    "NETRC": "~/.netrc",
}
_USER_INFO = re.compile(r"(?<=://)[^/\s\"'<>]+@")
_URL = re.compile(r"://([^:/\s]*):(\S*)@")  # who forgot to quote a "/" means a password too
_IN_A_FILE = re.compile(
    r"(?i)\w*(?:secret|token|passw|api_key|access_key)\w*\s*[=:\s]\s*[\"']?([^\s\"']+)"
)
_BEHIND_A_NAME = re.compile(
    r"(?i)((?:secret_?access_?key|access_?key_?id|credential|session_?token|security[-_]token|\btoken"
    r"|authorization\W{1,9}(?:b['\"])?(?:basic|bearer))\W{1,9}(?:b['\"])?)[\w+/=.~%-]{16,}"
)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with every secret replaced."""
    text = _USER_INFO.sub(HIDDEN + "@", text)
    text = _BEHIND_A_NAME.sub(rf"\1{HIDDEN}", text)
    known = {form for secret in _secrets(environ) for form in _forms(secret)}
    for form in sorted(known, key=len, reverse=True):  # one may be a part of another
        text = text.replace(form, HIDDEN)
    return text


def holds_a_secret(data: bytes, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether one of this machine's secrets, of those that no ordinary text holds, is in `data`."""
    forms = {form for secret in _secrets(environ) for form in _forms(secret)}
    return any(len(f) >= _SHORTEST_UNMISTAKABLE and f.encode() in data for f in forms)


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if _NAME.search(name.upper()):
            yield from _held(value) if _FILE_NAME.search(name.upper()) else (value,)
        yield from _in_urls(value)
    for name, default in _FILES.items():
        yield from _held(environ.get(name) or default)
    if "HF_HOME" in environ:
        yield from _held(f"{environ['HF_HOME']}/token")


def _in_urls(value: str) -> Iterator[str]:
    """Passwords of URLs, also as a Basic header carries them."""
    for user, password in _URL.findall(value) if "@" in value else ():
        yield from (password, unquote(password))
        yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _held(file: str) -> tuple[str, ...]:
    path = Path(file).expanduser()
    try:
        found = path.stat()
        return _read(path, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError):
        return ()


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int, size: int) -> tuple[str, ...]:
    """Tokens are renewed while a run lasts, so a file is read again when it has changed."""
    if not path.is_file() or size > _LARGEST_FILE:
        return ()
    text = path.read_text(encoding="utf-8", errors="replace")
    return (text.strip(),) if len(text.split()) == 1 else tuple(_IN_A_FILE.findall(text))


@lru_cache(maxsize=256)
def _forms(secret: str) -> frozenset[str]:
    """How a secret may be written: as it is, in a URL, in JSON and as Python shows it."""
    secret = secret.strip()
    if len(secret) < _SHORTEST or (secret.isdigit() and len(secret) < _SHORTEST_UNMISTAKABLE):
        return frozenset()
    plain = json.dumps(secret)[1:-1]
    forms = {secret, quote(secret), quote(secret, safe=""), plain, repr(secret)[1:-1]}
    return frozenset(forms | {json.dumps(form)[1:-1] for form in forms})
