"""An example is known by its content."""

from trainer.corpus.examples import Completion, Text


def test_a_key_depends_on_the_content_and_on_where_its_parts_end():
    assert Text("a").key == Text("a").key
    keys = {Text("ab").key, Completion("a", "b").key, Completion("ab", "").key}
    assert len(keys) == 3
    assert all(len(key) == 64 for key in keys)
