"""What a GPU's attention does where documents have more keys than queries, in plain torch."""

from itertools import pairwise

import torch

from trainer.kernels.attention import Attended, Documents


class PlainAttention:
    def forward(
        self, q_MHD: torch.Tensor, k_MKD: torch.Tensor, v_MKD: torch.Tensor, where: Documents
    ) -> Attended:
        """The queries of each document stand at its end."""
        out, group = torch.empty_like(q_MHD), q_MHD.shape[1] // k_MKD.shape[1]
        bounds = [pairwise(part.starts.tolist()) for part in (where, where.keys or where)]
        for (first, last), (begin, end) in zip(*bounds, strict=True):
            q_HSD = q_MHD[first:last].transpose(0, 1).double()
            k_HTD, v_HTD = (
                x[begin:end].repeat_interleave(group, 1).transpose(0, 1).double()
                for x in (k_MKD, v_MKD)
            )
            sees = torch.ones(last - first, end - begin, dtype=torch.bool, device=q_HSD.device)
            sees = sees.tril(end - begin - (last - first))
            scores = q_HSD @ k_HTD.transpose(1, 2) / q_HSD.shape[-1] ** 0.5
            made = scores.masked_fill(~sees, float("-inf")).softmax(-1) @ v_HTD
            out[first:last] = made.transpose(0, 1).to(out.dtype)
        return Attended(out, out, ())
