"""What a bucket's owner asks of each request: who pays for it, and which key encrypts."""

from dataclasses import dataclass
from typing import Any

STORING = {"PutObject", "CreateMultipartUpload"}


@dataclass(frozen=True)
class RequestOptions:
    """The same for every bucket of this process."""

    requester_pays: bool = False
    kms_key: str = ""
    """id, ARN or alias of the key for SSE-KMS; "" leaves it to the bucket"""

    def add_to(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        """A handler of botocore's event `provide-client-params`."""
        if self.requester_pays and "RequestPayer" in model.input_shape.members:
            params["RequestPayer"] = "requester"
        if self.kms_key and model.name in STORING:
            params.update(ServerSideEncryption="aws:kms", SSEKMSKeyId=self.kms_key)

    def headers(self, *, storing: bool) -> dict[str, str]:
        """The same for a request of our own."""
        headers = {"x-amz-request-payer": "requester"} if self.requester_pays else {}
        if self.kms_key and storing:
            headers["x-amz-server-side-encryption"] = "aws:kms"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.kms_key
        return headers


_default = RequestOptions()


def set_default(options: RequestOptions) -> None:
    """Make every request of a store that is opened from now on with `options`."""
    global _default
    _default = options


def default() -> RequestOptions:
    return _default
