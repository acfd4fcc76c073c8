"""An example is known by its content."""

import pytest

from trainer.corpus.examples import Completion, Text, Unusable, as_unusable
from trainer.errors import Interrupted


def test_a_key_depends_on_the_content_and_on_where_its_parts_end():
    assert Text("a").key == Text("a").key
    keys = {Text("ab").key, Completion("a", "b").key, Completion("ab", "").key}
    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (Unusable("it is empty"), "it is empty"),
        (OverflowError("int too large\nor not"), r"it is no readable record \(int too large\)"),
        (KeyError(), r"it is no readable record \(KeyError\)"),
        (RecursionError("maximum"), "it is nested too deep for a record"),
    ],
)
def test_whatever_reading_a_record_raises_is_its_fault(raised: Exception, words: str) -> None:
    with pytest.raises(Unusable, match=f"^{words}$"):
        raise as_unusable(raised, "record")


@pytest.mark.parametrize("raised", [OSError(5, "disk"), MemoryError(), Interrupted("SIGTERM")])
def test_what_is_no_fault_of_a_record_is_raised(raised: Exception) -> None:
    with pytest.raises(type(raised)):
        as_unusable(raised, "record")
