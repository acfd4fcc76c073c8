"""Prefixes of buckets on a real S3 server as stores."""

from typing import Any

import pytest

from trainer.storage.s3.store import BucketStore


@pytest.fixture
def store(bucket: Any) -> BucketStore:
    return BucketStore(bucket.name, "out", retry_minutes=0)


@pytest.fixture
def spoiled(faults: Any) -> BucketStore:
    """The bucket of `faults`, through its proxy; it is tried for twelve seconds."""
    return BucketStore(faults.bucket.name, "out", retry_minutes=0.2)
