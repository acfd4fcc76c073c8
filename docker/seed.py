"""Create a bucket and upload a folder to it, once the server answers: seed.py BUCKET FOLDER"""

import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

WAIT_S = 60
NOT_READY = (500, 502, 503)


def main(bucket: str, folder: Path) -> None:
    s3 = boto3.client("s3")
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            s3.create_bucket(Bucket=bucket)
            break
        except (s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            break
        except (EndpointConnectionError, ClientError) as error:
            response = getattr(error, "response", {}).get("ResponseMetadata", {})
            passing = response.get("HTTPStatusCode", 503) in NOT_READY
            if not passing or time.monotonic() > deadline:
                sys.exit(f"bucket {bucket} was not created: {error}")
            time.sleep(1)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        s3.upload_file(str(path), bucket, path.relative_to(folder).as_posix())
    print(f"bucket {bucket} holds {len(files)} files of {folder}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
