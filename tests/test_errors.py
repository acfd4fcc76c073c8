"""Exit codes: one for each way to fail, the same in the code, in its tree and on their page."""

import re
from pathlib import Path

import pytest

from trainer import errors
from trainer.errors import JobError

PAGE = (Path(__file__).parent.parent / "docs" / "exit-codes.md").read_text()
KINDS = [JobError, *(k for k in JobError.__subclasses__() if k.__module__ == errors.__name__)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_tree_at_the_top_has_every_failure(kind: type[JobError]) -> None:
    row = re.search(rf"{kind.__name__} +{kind.exit_code}  .*", errors.__doc__ or "")
    assert row
    assert row[0].endswith("; retry") == kind.retry_helps


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_page_says_whether_starting_again_helps(kind: type[JobError]) -> None:
    (helps,) = re.findall(rf"(?m)^\| {kind.exit_code} \| .* \| (\w+) \|$", PAGE)
    assert (helps != "no") == kind.retry_helps


def test_no_two_failures_share_a_code() -> None:
    assert len({kind.exit_code for kind in KINDS}) == len(KINDS)
