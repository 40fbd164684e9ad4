"""Learning from annotations that do not name everything: only some classes take part in a step.

In LVIS nobody looked for all 1,203 classes in every image, so "not annotated" does not mean "not there", and a rare
class would mostly be seen as a negative of others. The federated loss (CenterNet2, Zhou et al. 2021, section 4.2; used
by Detic) lets a step learn the classes that the batch shows and a few others, drawn by how many images have them.

There, each class has a sigmoid of its own, and a class that is not drawn is left out of the sum. RegionCLIP's
classifier is one softmax, which has no such terms; here a class that is not drawn is left out of the softmax itself:
its logit becomes minus infinity, so that it takes no probability from others and gets no gradient. The background
always stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regionclip_cli.errors import UsageError

CLASSES_OF_A_STEP = 50
POWER = 0.5


class FederatedClasses(nn.Module):
    """Draws the classes of a step.

    Args:
        images: For each class the number of training images that have it.
        count: Classes of a step, those that the batch shows included.
        power: A class is drawn with a probability proportional to its number of images to this power.

    Raises:
        UsageError: There is no class, or a number is negative.
    """

    weights: Tensor

    def __init__(self, images: Sequence[int], count: int = CLASSES_OF_A_STEP, power: float = POWER) -> None:
        super().__init__()
        numbers = torch.as_tensor(images, dtype=torch.float32)
        if numbers.ndim != 1 or not len(numbers) or bool((numbers < 0).any()):
            raise UsageError("The federated loss needs the number of images of every class.")
        self.count = count
        self.register_buffer("weights", numbers**power, persistent=False)

    def draw(self, labels: Tensor) -> Tensor:
        """Return (C,) bool: which classes take part in a step whose objects have these labels (F,)."""
        shown = torch.zeros(len(self.weights), dtype=torch.bool, device=labels.device)
        shown[labels] = True
        weights = self.weights.to(labels.device).masked_fill(shown, 0)
        more = min(self.count - int(shown.sum()), int((weights > 0).sum()))
        if more > 0:
            shown[torch.multinomial(weights, more)] = True
        return shown

    def restrict(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return logits (R, C + 1) with minus infinity in the columns of classes that were not drawn.

        Args:
            logits: (R, C + 1), the background last.
            labels: (F,) classes of the objects in the batch, each in 0..C-1.
        """
        drawn = self.draw(labels)
        kept = torch.cat([drawn, drawn.new_ones(logits.shape[1] - len(drawn))])
        return logits.masked_fill(~kept, -torch.inf)
