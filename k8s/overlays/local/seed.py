"""Create the bucket of QLORA_DATA_URI and put this overlay's questions in."""

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

data = urlsplit(os.environ["QLORA_DATA_URI"])
# MinIO starts at the same time: half a minute of patience, then the pod is retried.
s3 = boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 8}))
with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
    s3.create_bucket(Bucket=data.netloc)
key = data.path.lstrip("/") + "questions.jsonl"
s3.upload_file(str(Path(__file__).with_name("questions.jsonl")), data.netloc, key)
