"""Folders and URIs as users write them: which stores there are, faults, what may be published."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class Scheme:
    """One kind of store, as its URIs begin."""

    form: str
    """How such a URI is written, for help and messages"""
    container: re.Pattern[str]
    """What may stand between `://` and the next `/`"""
    container_name: str
    """What that is called: "bucket name" """


# Every kind of store beside a folder. A new one is an entry here; storage/ has what opens it.
SCHEMES = {
    "s3": Scheme(
        form="s3://bucket/prefix/",
        container=re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        container_name="bucket name",
    )
}
FORMS = " or ".join(f"`{scheme.form}`" for scheme in SCHEMES.values())


def scheme_of(uri: str) -> str | None:
    """Which kind of store `uri` names, "s3"; None for a folder and for what no store is."""
    scheme, separator, _ = uri.partition("://")
    return scheme if separator and scheme in SCHEMES else None


def normal(text: str) -> str:
    """`text` as it is compared: `S3://` is no other place than `s3://`, and `~` is the home."""
    scheme, separator, rest = text.partition("://")
    if scheme.lower() in SCHEMES and separator:
        return f"{scheme.lower()}://{rest}"
    return str(Path(text).expanduser()) if text.startswith("~") else text


def looks_remote(text: str) -> bool:
    """Whether `text` begins as the URI of a store does, though perhaps misspelt (`s3:/bucket`)."""
    return text.partition(":")[0] in SCHEMES and ":" in text


def uri_faults(source: str, uri: str) -> Iterator[str]:
    """What is wrong with the form of `uri`, which `source` gave."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if looks_remote(uri):
            yield f"{source}={uri}: write it as {SCHEMES[uri.partition(':')[0]].form}"
        return
    container = rest.split("/")[0]
    if scheme not in SCHEMES:
        known = " and ".join(f"{name}://" for name in SCHEMES)
        yield f"{source}={publishable_uri(uri)}: only folders and {known} are supported"
    elif not SCHEMES[scheme].container.fullmatch(container):
        shown, called = container.rpartition("@")[2], SCHEMES[scheme].container_name
        yield f"{source}={publishable_uri(uri)}: {shown!r} is not a {called}"


def publishable_uri(uri: str) -> str:
    """`uri` without user info, and a local path without the folders above its last name."""
    if "://" in uri:
        parts = urlsplit(uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if uri.startswith((".", "/", "~", "\\")):
        return Path(uri).expanduser().resolve().name
    return uri
