"""The losses of RegionCLIP as plain functions: three for pretraining on captions, three for training a detector.

All of them take embeddings as the network makes them (they are normalised here), work in float32, and return a scalar.
With no region at all a loss is 0 and still connected to the network, so that an empty batch costs nothing and breaks
nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from regionclip_cli.vision.classifier import cosine


def region_distillation(regions: Tensor, concepts: Tensor, teacher: Tensor, temperature: float = 0.01) -> Tensor:
    """Return KL(q || p), summed over concepts and averaged over regions (RegionCLIP section 3.2, distillation loss).

    p = softmax(cos(v, l) / temperature) is the student's match of a region to all concepts, q the teacher's.

    Args:
        regions: (R, D) student embeddings v.
        concepts: (C, D) concept embeddings l in the student's space.
        teacher: (R, C) probabilities q, as `classifier.match_concepts` makes them.
        temperature: The same for both.
    """
    if not len(regions):
        return regions.sum() * 0.0
    student = (cosine(regions, concepts) / temperature).log_softmax(dim=-1)
    return F.kl_div(student, teacher.detach().float(), reduction="batchmean")


def partial_distillation(
    regions: Tensor, concepts: Tensor, best: Tensor, probabilities: Tensor, temperature: float = 0.01
) -> Tensor:
    """Return the distillation loss where the teacher's k best concepts of a region are known and the others are not.

    What is known is a distribution over k + 1 events: the best concepts b_1 ... b_k, and "any other" with
    q_0 = 1 - sum_j q_j. The student's p gives these events the probabilities p_{b_j} and p_0 = 1 - sum_j p_{b_j}, and

        L = mean over regions of sum_j q_j log(q_j / p_{b_j}) + q_0 log(q_0 / p_0).

    By the log sum inequality this is never more than the full loss; they are equal when the student divides p_0 among
    the other concepts as the teacher does, and when k = C, where nothing is left over. Minimising it moves mass between
    the best concepts and the rest as the teacher says, and leaves the order among the rest to the student.

    Args:
        regions: (R, D) student embeddings.
        concepts: (C, D) concept embeddings in the student's space.
        best: (R, k) long, distinct concepts of each region.
        probabilities: (R, k) the teacher's q of them; a row that rounding has brought above 1 is scaled down to 1.
        temperature: As in `region_distillation`.
    """
    if not len(regions):
        return regions.sum() * 0.0
    student = (cosine(regions, concepts) / temperature).log_softmax(dim=-1)  # (R, C)
    known = probabilities.detach().float()
    total = known.sum(dim=1, keepdim=True)
    whole = best.shape[1] == concepts.shape[0]
    known = known / (total.clamp(min=1e-12) if whole else total.clamp(min=1))
    loss = F.kl_div(student.gather(1, best), known, reduction="sum")
    if not whole:
        rest = (1 - known.sum(dim=1)).clamp(min=0)
        others = student.scatter(1, best, -torch.inf).logsumexp(dim=1)
        loss = loss + F.kl_div(others, rest, reduction="sum")
    return loss / len(regions)


def concept_contrastive(
    regions: Tensor, concepts: Tensor, targets: Tensor, temperature: float = 0.01, counts: Tensor | None = None
) -> Tensor:
    """Return the region-to-text contrastive loss over the regions at hand (RegionCLIP section 3.2, pseudo labels).

    With the target embedding t_j of every region j as a column, S_ij = cos(v_i, t_j) / temperature and

        L = mean_i -log( sum_{j: c_j = c_i} exp(S_ij) / sum_j exp(S_ij) ).

    Regions of one concept are all positives of each other, inside the logarithm (the MIL-NCE form), and repeated
    columns are kept: a concept that occurs often is also a frequent negative. Columns of one concept are equal, so the
    n_c of them add up to n_c exp(S_ic) = exp(S_ic + log n_c), and the loss is a cross entropy over distinct concepts.

    Args:
        regions: (R, D) student embeddings v, of all images of the batch.
        concepts: (C, D) concept embeddings in the student's space.
        targets: (R,) long, the concept c_i of each region.
        temperature: Divisor of the cosine.
        counts: (C,) how many regions have each concept, n_c. Left out, they are counted in `targets`; processes that
            contrast over all their regions pass the sum of their counts, which is all they need of each other.
    """
    if not len(regions):
        return regions.sum() * 0.0
    counts = targets.bincount(minlength=len(concepts)) if counts is None else counts
    present = counts.nonzero().flatten()  # (U,) concepts that occur, ascending
    logits = cosine(regions, concepts[present]) / temperature + counts[present].float().log()  # (R, U)
    return F.cross_entropy(logits, torch.searchsorted(present, targets))


def image_text(images: Tensor, texts: Tensor, temperature: float = 0.01) -> Tensor:
    """Return the symmetric contrastive loss of paired images (B, D) and captions (B, D), as in CLIP.

    L = 1/2 [ CE(I T' / temperature) + CE(T I' / temperature) ], the pairs on the diagonal being right.
    """
    if not len(images):
        return images.sum() * 0.0 + texts.sum() * 0.0
    logits = cosine(images, texts) / temperature
    pairs = torch.arange(len(images), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def focal_scaled_cross_entropy(
    logits: Tensor, labels: Tensor, gamma: float = 0.5, background_weight: float = 0.2
) -> Tensor:
    """Return mean_i w_i (1 - p_i)^gamma (-log p_i), p_i being the probability of the right class (COCO transfer).

    The weight w_i is `background_weight` for background regions and 1 for the others; the mean is over all R regions
    and not over the sum of the weights. The factor (1 - p)^gamma turns attention to what is not learned yet, which
    slows the forgetting of novel classes.

    Args:
        logits: (R, C + 1), the background last.
        labels: (R,) long, C for background.
        gamma: 0 leaves plain cross entropy.
        background_weight: Weight of a background region.
    """
    if not len(logits):
        return logits.sum() * 0.0
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    # 1 - p = 1 - exp(-loss). The clamp keeps the root's slope finite where a region is already certain.
    rest = (-torch.expm1(-loss)).clamp(min=1e-7)
    return (_weights(logits, labels, background_weight) * rest**gamma * loss).mean()


def weighted_cross_entropy(logits: Tensor, labels: Tensor, background_weight: float = 0.8) -> Tensor:
    """Return sum_i w_i (-log p_i) / sum_i w_i, background regions weighing `background_weight` (LVIS transfer).

    Args:
        logits: (R, C + 1), the background last.
        labels: (R,) long, C for background.
        background_weight: Weight of a background region.
    """
    if not len(logits):
        return logits.sum() * 0.0
    weights = _weights(logits, labels, background_weight)
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    return (weights * loss).sum() / weights.sum().clamp(min=torch.finfo(loss.dtype).tiny)


def box_regression(deltas: Tensor, targets: Tensor, num_regions: int) -> Tensor:
    """Return sum |delta - target| over the foreground regions, divided by all sampled regions.

    Dividing by all R sampled regions rather than by the foreground ones keeps the gradient of one box independent of
    how many others there are (the convention of Fast R-CNN in the official code).

    Args:
        deltas: (F, 4) predicted (dx, dy, dw, dh) of the foreground regions, scaled by the weights (10, 10, 5, 5).
        targets: (F, 4) the deltas that lead to the matched boxes, scaled alike.
        num_regions: R, foreground and background.
    """
    return (deltas.float() - targets.float()).abs().sum() / max(num_regions, 1)


def _weights(logits: Tensor, labels: Tensor, background_weight: float) -> Tensor:
    """Return (R,) 1 for a foreground label and `background_weight` for the last one."""
    background = labels == logits.shape[1] - 1
    return torch.ones_like(labels, dtype=torch.float32).masked_fill(background, background_weight)
