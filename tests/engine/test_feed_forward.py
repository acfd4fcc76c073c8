"""The feed-forward network of a layer, in slices of rows."""

from trainer.engine.feed_forward import slices


def test_rows_are_cut_into_slices_of_at_most_so_many() -> None:
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(0, 3) == []
