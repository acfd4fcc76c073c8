"""Memory for what arrives is used again."""

from trainer.storage.buffers import Buffers


def test_a_buffer_is_taken_again_once_it_was_given_back() -> None:
    buffers = Buffers()
    first, second = buffers.take(8), buffers.take(8)
    assert first is not second
    buffers.give_back(first)
    assert buffers.take(8) is first
    assert len(buffers.take(8)) == 8
