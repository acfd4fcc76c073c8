"""Folders and buckets behind one face, `Store`; `s3/` alone knows boto3.

`fetch` brings data in, `publish` takes a finished run out, `open_store` is for everything between.
Credentials, endpoint, region and CA come from the standard `AWS_*` variables and files only.

The names below are what other wings use, so that a caller need not know which file has them. None
of them imports anything heavy: boto3 is imported when a bucket is opened.
"""

from trainer.storage.buffers import Bytes
from trainer.storage.local import FolderStore
from trainer.storage.manifest import Published, read_manifest
from trainer.storage.store import Content, DamagedError, Store, Stored, retry_if_damaged
from trainer.storage.transfer import (
    Fetched,
    fetch,
    fetch_verified,
    objects_at,
    open_store,
    publish,
)

__all__ = [
    "Bytes",
    "Content",
    "DamagedError",
    "Fetched",
    "FolderStore",
    "Published",
    "Store",
    "Stored",
    "fetch",
    "fetch_verified",
    "objects_at",
    "open_store",
    "publish",
    "read_manifest",
    "retry_if_damaged",
]
