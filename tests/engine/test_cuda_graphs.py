"""What a graph is captured with; that it computes the right thing a GPU shows, in test_cuda.py."""

import torch

from trainer.engine.cuda_graphs import blank_inputs


def test_a_graph_is_captured_for_whole_rows_and_empty_documents_behind_them() -> None:
    blank = blank_inputs(2, 8, 4, torch.device("cpu"))
    assert [tuple(tensor.shape) for tensor in blank.tensors()] == [(2, 8)] * 3
    assert blank.where.starts.tolist() == [0, 8, 16, 16, 16]
    assert blank.where.starts.dtype == torch.int32
    assert blank.where.longest == 8
