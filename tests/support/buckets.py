"""Fresh buckets on the S3 server of the environment, and what lies in them."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.jobs import QUESTIONS

# Of the fixture `bucket`, for what does not depend on TLS, or on its absence.
over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)
over_tls = pytest.mark.parametrize("bucket", ["tls"], indirect=True)


def upload_questions(bucket: Any) -> dict[str, str]:
    """Put the questions into `bucket`; the settings that train on them."""
    lines = "".join(json.dumps(record) + "\n" for record in QUESTIONS)
    bucket.put_object(Key="corpus/", Body=b"")
    bucket.put_object(Key="corpus/questions.jsonl", Body=lines.encode())
    return {"DATA_URI": f"s3://{bucket.name}/corpus/", "OUTPUT_URI": f"s3://{bucket.name}/models/"}


def keys(bucket: Any) -> set[str]:
    return {stored.key for stored in bucket.objects.all()}


def needs(variable: str) -> str:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return os.environ[variable]


@contextmanager
def fresh_bucket() -> Iterator[Any]:
    import boto3

    fresh = (
        boto3.session.Session().resource("s3").create_bucket(Bucket=f"test-{secrets.token_hex(8)}")
    )
    try:
        yield fresh
    finally:
        for upload in fresh.multipart_uploads.all():
            upload.abort()
        for found in fresh.objects.all():  # one by one: XML cannot carry every key
            found.delete()
        fresh.delete()


def put(bucket: Any, key: str, body: bytes = b"hello") -> None:
    bucket.put_object(Key=key, Body=body)
