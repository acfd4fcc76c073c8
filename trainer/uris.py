"""Folders and the URIs of buckets as users write them: what they name, their faults, and how they
may be published. A new scheme is one entry here, and one in `storage/transfer.py` for its store.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from trainer.errors import SettingsError

SCHEMES = {"s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")}
"""Of stores in a bucket, each with the names that a bucket may have there."""
FORMS = " or ".join(f"`{scheme}://bucket/prefix/`" for scheme in SCHEMES)
"""How their URIs are written, for help"""


def is_bucket_uri(text: str) -> bool:
    """Whether `text` begins as the URI of a bucket: `s3://`."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in SCHEMES


def is_meant_as_bucket_uri(text: str) -> bool:
    """The same without its slashes, `s3:bucket`, which is a fault."""
    scheme, separator, _ = text.partition(":")
    return bool(separator) and scheme in SCHEMES


def in_lower_case(text: str) -> str:
    """A bucket's URI with its scheme as it is compared: `S3://` is no other place than `s3://`."""
    scheme, separator, rest = text.partition("://")
    is_bucket = separator and scheme.lower() in SCHEMES
    return scheme.lower() + separator + rest if is_bucket else text


def split_bucket_uri(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and key, which may be empty. Raises SettingsError for any other text."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not is_bucket_uri(uri) or not SCHEMES[scheme].fullmatch(bucket):
        forms = " or ".join(f"{scheme}://bucket/prefix/" for scheme in SCHEMES)
        raise SettingsError(f"{publishable_uri(uri)}: is no {forms}; correct the URI")
    return scheme, bucket, key


def uri_faults(source: str, uri: str) -> Iterator[str]:
    """What is wrong with `uri`, which the setting `source` holds; nothing for a folder."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if is_meant_as_bucket_uri(uri):
            yield f"{source}={uri}: write it as {uri.partition(':')[0]}://bucket/prefix/"
        return
    if scheme not in SCHEMES:
        known = " and ".join(f"{scheme}://" for scheme in SCHEMES)
        if scheme.lower() == "file":
            yield f"{source}={uri}: write the folder as /{rest.lstrip('/')}"
            return
        yield (
            f"{source}={publishable_uri(uri)}: only folders and {known} are supported; bring what "
            "is there to a folder first"
        )
    elif not SCHEMES[scheme].fullmatch(rest.split("/")[0]):
        bucket = rest.split("/")[0].rpartition("@")[2]
        if not bucket:
            yield f"{source}={scheme}://: names no bucket; write {scheme}://bucket/prefix/"
            return
        yield f"{source}={publishable_uri(uri)}: {bucket!r} is not a bucket name"


def publishable_uri(uri: str) -> str:
    """`uri` without user info, and a local path without the folders above its last name."""
    if "://" in uri:
        parts = urlsplit(uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if uri.startswith((".", "/", "~", "\\")):
        return Path(uri).expanduser().resolve().name
    return uri
