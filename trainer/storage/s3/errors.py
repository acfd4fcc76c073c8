"""What an error of S3, or of the way to it, means, and whether it passes."""

import re
from typing import Any

from trainer.errors import DataError, JobError, NotAllowedError, SettingsError, UnreachableError
from trainer.storage.retry import Failure

NOT_ALLOWED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationError"}
OTHER_REGION = {
    "301",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
PASSING = {
    "BadDigest",  # damaged on the way, as the next two
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "ConcurrentModification",  # Ceph's word for the next one
    "ConditionalRequestConflict",
    "NoSuchUpload",  # aborted as stale by another pod of this run
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
}

# Of a connection that was fine: cut, or damaged on the way. Whatever else TLS refuses stays so.
BROKEN_TLS = re.compile("EOF occurred|UNEXPECTED_EOF|BAD_RECORD_MAC")


class TruncatedError(Exception):
    """A body ended early without an error."""


def explain(error: Exception, endpoint: str, missing_bucket: type[JobError]) -> Failure | None:
    """The failure behind an exception of boto3 and below; None for one that is not storage's.

    Only codes and class names are quoted: texts can hold `user:password@host`.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, boto.ClientError):
        return _of_answer(error.response, endpoint, missing_bucket)
    if isinstance(error, boto.SSLError):
        return _of_tls(str(error.kwargs["error"]), endpoint)
    credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    if isinstance(error, credentials):
        step = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"
        return Failure(NotAllowedError, f"no usable credentials ({_name(error)})", step)
    on_the_way = (
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.ChecksumError,
        boto.FlexibleChecksumError,
        ResponseParserError,
        HTTPError,
        TruncatedError,
    )
    if isinstance(error, on_the_way):
        return _unreachable(error, endpoint)
    if isinstance(error, boto.BotoCoreError):
        step = "check the AWS_* variables and ~/.aws/config"
        return Failure(SettingsError, f"boto3 cannot use its settings ({_name(error)})", step)
    return None


def not_s3(endpoint: str) -> Failure:
    step = "set AWS_ENDPOINT_URL_S3 to its S3 port (MinIO: 9000, where 9001 is the console)"
    return Failure(SettingsError, f"{endpoint} answers with a web page, it is no S3 server", step)


def code_of(response: Any) -> str:
    return str(response.get("Error", {}).get("Code", ""))


def _of_answer(response: Any, endpoint: str, missing_bucket: type[JobError]) -> Failure:
    code = code_of(response)
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    region = _region(response)
    fact = f"{endpoint} answered {code} ({status})"
    if code == "NoSuchBucket":
        step = "correct the bucket's name or create it with `aws s3 mb`"
        return Failure(missing_bucket, f"there is no such bucket, {fact}", step)
    if code in OTHER_REGION or (status in (301, 400) and code == str(status) and region):
        step = f"set AWS_DEFAULT_REGION to {region or 'the region of the bucket'}"
        return Failure(SettingsError, f"the bucket is in another region, {fact}", step)
    if _was_cut(response, code, status):
        fact = f"{endpoint} answered {status} and was cut off"
        return Failure(UnreachableError, fact, "start again when it answers", passing=True)
    if code in PASSING or status in (408, 429) or (status >= 500 and code != "NotImplemented"):
        return Failure(UnreachableError, fact, "start again when it answers", passing=True)
    if code == "RequestTimeTooSkewed":
        return Failure(NotAllowedError, fact, "set this machine's clock")
    if code in NOT_ALLOWED or status in (401, 403):
        step = "check the credentials and that they may list, get, put and delete there"
        return Failure(NotAllowedError, fact, step)
    if status == 404:
        return Failure(DataError, fact, "it was removed since it was listed; start again")
    return Failure(JobError, fact, "look the code up in the server's documentation")


def _was_cut(response: Any, code: str, status: int) -> bool:
    """Whether an error came without its body: botocore then makes a code of the status."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    has_body = "xml" in headers.get("content-type", "") and headers.get("content-length") != "0"
    return code == str(status) and bool(has_body)


def _region(response: Any) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    error = response.get("Error", {})
    return str(error.get("Region") or headers.get("x-amz-bucket-region") or "")


def _of_tls(text: str, endpoint: str) -> Failure:
    found = re.search(r"\[((?:SSL|X509): \w+|Errno \d+)\]", text) or BROKEN_TLS.search(text)
    reason = found[found.lastindex or 0] if found else "no reason given"
    step = "check AWS_CA_BUNDLE and the scheme of AWS_ENDPOINT_URL_S3"
    fact = f"TLS with {endpoint} failed ({reason})"
    return Failure(UnreachableError, fact, step, passing=bool(BROKEN_TLS.search(text)))


def _unreachable(error: Exception, endpoint: str) -> Failure:
    fact = f"no good answer from {endpoint} ({_name(error)})"
    step = "check AWS_ENDPOINT_URL_S3 and the network, then start again"
    return Failure(UnreachableError, fact, step, passing=True)


def _name(error: Exception) -> str:
    return type(error).__name__
