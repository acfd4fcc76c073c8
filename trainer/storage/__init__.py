"""Folders and S3 buckets behind one face: the only room that knows boto3.

`fetch` brings data in, `publish` takes a finished run out, `open_store` is for everything between.
Credentials, endpoint, region and CA come from the standard `AWS_*` variables and files only.
"""

from trainer.storage.buffers import Bytes
from trainer.storage.local import FolderStore
from trainer.storage.s3.store import BucketStore
from trainer.storage.store import Content, DamagedError, Store, Stored, again_if_damaged
from trainer.storage.transfer import (
    Fetched,
    Published,
    fetch,
    fetch_verified,
    objects_at,
    open_store,
    publish,
    read_manifest,
)

__all__ = [
    "BucketStore",
    "Bytes",
    "Content",
    "DamagedError",
    "Fetched",
    "FolderStore",
    "Published",
    "Store",
    "Stored",
    "again_if_damaged",
    "fetch",
    "fetch_verified",
    "objects_at",
    "open_store",
    "publish",
    "read_manifest",
]
