"""CLIP's attention pooling for one query, at a twentieth of the usual cost.

CLIP ResNets end in attention over the cells x_1..x_n of a region, asked by their mean x_0 (all with positions added).
Only the answer to x_0 is used, so keys and values of all cells need never be computed. With q = W_q x_0 + b_q, head by
head:

    logit_j  = q . (W_k x_j + b_k)      = (W_k^T q) . x_j + const    the constant vanishes in the softmax
    answer   = sum_j a_j (W_v x_j + b_v) = W_v (sum_j a_j x_j) + b_v  because the weights a_j sum to 1

For RN50 (50 cells, 2,048 channels) this is 21 million multiplications a region instead of 420 million or more.
"""

from __future__ import annotations

import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor
from torch.nn import functional


def one_query_attention(pool: AttentionPool2d, cells: Tensor) -> Tensor:
    """Return what `pool(cells)` returns: (R, c, p, p) -> (R, D), computed in float32.

    Softmax logits are sums over thousands of channels: half precision would show in the embeddings, and save little.
    """
    x = cells.float().flatten(2).transpose(1, 2)  # (R, n, c); no copy when `cells` is channels-last
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.float()  # (R, 1 + n, c)
    heads, channels = pool.num_heads, x.shape[-1]
    width = channels // heads

    query = functional.linear(x[:, 0], pool.q_proj.weight.float(), pool.q_proj.bias.float())  # (R, c)
    query = query.unflatten(1, (heads, width)).transpose(0, 1) * width**-0.5  # (heads, R, width)
    keys = pool.k_proj.weight.float().unflatten(0, (heads, width))  # (heads, width, c)
    asked = torch.bmm(query, keys).transpose(0, 1)  # (R, heads, c): W_k^T q
    weights = torch.bmm(asked, x.transpose(1, 2)).softmax(dim=-1)  # (R, heads, 1 + n)

    mixed = torch.bmm(weights, x).transpose(0, 1)  # (heads, R, c): sum_j a_j x_j
    values = pool.v_proj.weight.float().unflatten(0, (heads, width)).transpose(1, 2)  # (heads, c, width)
    answer = torch.bmm(mixed, values).transpose(0, 1).flatten(1) + pool.v_proj.bias.float()  # (R, c)
    return functional.linear(answer, pool.c_proj.weight.float(), pool.c_proj.bias.float())
