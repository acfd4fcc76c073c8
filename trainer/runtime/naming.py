"""Short names for folders and runs: of a text's digest, of a URI's last part."""

import hashlib
import re


def digest(text: str) -> str:
    """The first 12 hex digits of a SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def slug(text: str) -> str:
    """The last part of a path or URI, as a name for a folder or a run."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-.")
    return name or "run"
