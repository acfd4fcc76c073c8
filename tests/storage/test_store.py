"""What stores have in common."""

import pytest

from trainer.storage.store import DamagedError, WrongContentError, retry_if_damaged


def test_what_arrives_damaged_is_read_once_more() -> None:
    tries: list[int] = []

    def read() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise DamagedError("a bit flipped")
        return "whole"

    assert retry_if_damaged(read) == "whole"


@pytest.mark.parametrize(("error", "wanted"), [(DamagedError, 2), (WrongContentError, 1)])
def test_it_is_not_read_a_third_time_nor_when_the_object_is_another(
    error: type[WrongContentError], wanted: int
) -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise error("wrong")

    with pytest.raises(error):
        retry_if_damaged(read)
    assert len(tries) == wanted
