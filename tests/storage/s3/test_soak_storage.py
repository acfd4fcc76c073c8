"""Every fault of a network once."""

import random

import pytest
import soak_storage
from support.buckets import fresh_bucket, needs


@pytest.mark.s3
@pytest.mark.parametrize("fault", soak_storage.FAULTS)
def test_a_fault_is_waited_out_or_named_and_no_byte_is_wrong(fault: str) -> None:
    """One of each, drawn by its name; `make soak` has all sizes, both ways, many times."""
    needs("AWS_ENDPOINT_URL_S3")
    draw = random.Random(fault)
    scheme, way = draw.choice(["http", "https"]), draw.choice(["up", "down"])
    with fresh_bucket() as fresh, soak_storage.at(fresh.name, scheme) as place:
        assert place.trial(fault, draw.choice(soak_storage.SIZES), way) == "right"
