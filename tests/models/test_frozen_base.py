"""Where the bytes of a layer lie; what a base that is whole does, which is nothing."""

import torch

from trainer.models.frozen_base import ALIGNED, FlatLayers, WholeBase, without_memory

WEIGHTS = {
    "model.layers.0.mlp.up_proj.weight": (3, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 320),
    "model.language_model.layers.1.self_attn.q_proj.weight": (64, 64),
    "model.vision_tower.layers.0.q_proj.weight": (64, 64),
}


def test_the_tensors_of_a_layer_lie_end_to_end_and_aligned() -> None:
    flat = FlatLayers(WEIGHTS)
    assert not any("vision" in name for name in flat.slices)
    for layer, size in enumerate(flat.sizes):
        inside = sorted((s.start, s.size) for s in flat.slices.values() if s.layer == layer)
        end = 0
        for start, length in inside:
            assert start == -(-end // ALIGNED) * ALIGNED
            end = start + length
        assert end <= size < end + ALIGNED
    up = {n.split(".weight")[1]: s.size for n, s in flat.slices.items() if "up_proj" in n}
    assert up == {"": 96, ".absmax": 3, ".nested_absmax": 4}


def test_equal_shards_have_padding_of_their_own() -> None:
    assert all(size % (3 * ALIGNED) == 0 for size in FlatLayers(WEIGHTS, 3).sizes)


def test_a_place_without_memory_has_the_shape_and_the_type() -> None:
    empty = without_memory(torch.ones(30, 4, dtype=torch.uint8))
    assert (empty.shape, empty.dtype) == ((30, 4), torch.uint8)
    assert empty.untyped_storage().nbytes() == 1


def test_a_whole_base_is_left_as_it_is() -> None:
    tensors = {"a": torch.ones(1)}
    assert WholeBase().keep_shard(tensors) is tensors
    assert list(WholeBase().gather_layers([2, 0])) == [2, 0]
