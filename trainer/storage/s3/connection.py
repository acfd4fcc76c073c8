"""What each request to a bucket needs: a client, where it leads, and how long it is tried."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from trainer.errors import DataError, JobError, SettingsError
from trainer.runtime import keys
from trainer.storage.endpoints import refuse_link_local
from trainer.storage.parallel import THREADS
from trainer.storage.retry import Failure, retry
from trainer.storage.s3 import request_options
from trainer.storage.s3.errors import code_of, explain, not_s3
from trainer.storage.s3.fast_path import FastPath, open_fast_path
from trainer.uris import publishable_uri

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60


class Connection:
    """To the objects below `root` in `bucket`. Safe to use from many threads."""

    def __init__(self, bucket: str, root: str, retry_minutes: float) -> None:
        self._bucket = bucket
        self.root = root.rstrip("/") + "/" if root.strip("/") else ""
        self.uri = f"s3://{bucket}/{self.root}"
        self._retry_minutes = retry_minutes
        session, self.client = _session_and_client(self.uri)
        refuse_link_local("AWS_ENDPOINT_URL_S3", self.client.meta.endpoint_url)
        self._endpoint = publishable_uri(self.client.meta.endpoint_url)
        self.options = request_options.default()
        self.client.meta.events.register("provide-client-params.s3", self.options.add_to)
        self.fast_path: FastPath | None = open_fast_path(
            session, self.client, bucket, READ_TIMEOUT_S
        )
        # A page can look like an empty bucket or, after boto3's own handler, like error 500;
        # the wildcard puts this handler in front of that one.
        self.client.meta.events.register("before-parse.*.ListObjectsV2", self._refuse_web_page)

    def at(self, name: str) -> dict[str, str]:
        """The object `name` in the parameters of a request. Raises DataError as `key`."""
        return {"Bucket": self._bucket, "Key": self.key(name)}

    def key(self, name: str) -> str:
        """The key of the object `name`. Raises DataError for a name that could lead elsewhere."""
        keys.refuse_unsafe([name], self.uri)
        return self.root + name

    def pages(self, operation: str, prefix: str, **limits: int) -> Any:
        """The answers to a listing of what starts with `prefix`, page by page."""
        paginator = self.client.get_paginator(operation)
        return paginator.paginate(Bucket=self._bucket, Prefix=self.root + prefix, **limits)

    def printable(self, name: str) -> str:
        """The URI of the object `name`, for a message."""
        return keys.printable(self.uri, name)

    def retried(
        self,
        name: str,
        request: Callable[[], Result],
        *,
        missing_bucket: type[JobError] = DataError,
        but_not: str = "",
    ) -> Result:
        """What `request` for the object `name` returns, tried again for the retry time.

        An answer with the code `but_not` is raised as boto3 raises it; all else as in Store, a
        bucket that is not there as `missing_bucket`.
        """

        def explained(error: Exception) -> Failure | None:
            if but_not and code_of(getattr(error, "response", None) or {}) == but_not:
                return None
            return explain(error, self._endpoint, missing_bucket)

        return retry(request, explained, self.printable(name), self._retry_minutes)

    def _refuse_web_page(self, response_dict: Any, **_: Any) -> None:
        is_page = "html" in response_dict["headers"].get("content-type", "")
        if is_page and response_dict["status_code"] in (200, 404, 405):
            raise not_s3(self._endpoint).error(self.uri)


def _session_and_client(where: str) -> Any:
    """Both botocore's."""
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=2 * THREADS,
    )

    def explained(error: Exception) -> Failure | None:
        if isinstance(error, ValueError):  # its text quotes the URL with the password in it
            step = "write it as http://host:port"
            return Failure(SettingsError, "AWS_ENDPOINT_URL_S3 is not a URL", step)
        return explain(error, "boto3", SettingsError)

    def make() -> Any:
        session = botocore.session.get_session()
        session.register_component("data_loader", _loader())
        return session, session.create_client("s3", config=config)

    return retry(make, explained, where, minutes=0)


@cache
def _loader() -> Any:
    """Reads botocore's descriptions of S3 once for all clients: most of what making one takes."""
    import botocore.session

    return botocore.session.get_session().get_component("data_loader")
