"""Folders and `s3://` URIs as users write them: their faults, and how they may be published."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


def uri_faults(source: str, uri: str) -> Iterator[str]:
    scheme, separator, rest = uri.partition("://")
    if uri.startswith("s3:") and not separator:
        yield f"{source}={uri}: write it as s3://bucket/prefix/"
    if not separator:
        return
    if scheme != "s3":
        yield f"{source}={publishable_uri(uri)}: only folders and s3:// are supported"
    elif not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", rest.split("/")[0]):
        bucket = rest.split("/")[0].rpartition("@")[2]
        yield f"{source}={publishable_uri(uri)}: {bucket!r} is not a bucket name"


def publishable_uri(uri: str) -> str:
    """`uri` without user info, and a local path without the folders above its last name."""
    if "://" in uri:
        parts = urlsplit(uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if uri.startswith((".", "/", "~", "\\")):
        return Path(uri).expanduser().resolve().name
    return uri
