"""detectron2's region proposal networks under the names that mmdet gives the same layers.

Both libraries build one network, a "caffe style" ResNet-50 with the stride in the first 1x1 convolution, and differ in
words: `res2` is `layer1`, `shortcut` is `downsample`, `objectness_logits` is `rpn_cls`. RegionCLIP uses three kinds:

* `rpn-fpn`: a feature pyramid, trained on LVIS' 866 base classes (inside the pre-training checkpoints, too);
* `rpn-fpn-lsj`: the same with two convolutions in the head and normalisation in the pyramid (large-scale jitter);
* `rpn-c4`: no pyramid, one map of stride 16 with 15 anchors, trained on COCO's 48, 65 or 80 classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regionclip_cli.conversion.clip import with_counters
from regionclip_cli.conversion.shapes import check, few, shapes_of
from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals.build import build_proposals

RENAMES = (
    (r"backbone\.(?:bottom_up\.)?stem\.conv1\.norm\.", r"backbone.bn1."),
    (r"backbone\.(?:bottom_up\.)?stem\.conv1\.", r"backbone.conv1."),
    (r"backbone\.(?:bottom_up\.)?res(\d)\.(\d+)\.shortcut\.norm\.", r"backbone.layer{0}.\2.downsample.1."),
    (r"backbone\.(?:bottom_up\.)?res(\d)\.(\d+)\.shortcut\.", r"backbone.layer{0}.\2.downsample.0."),
    (r"backbone\.(?:bottom_up\.)?res(\d)\.(\d+)\.conv(\d)\.norm\.", r"backbone.layer{0}.\2.bn\3."),
    (r"backbone\.(?:bottom_up\.)?res(\d)\.(\d+)\.conv(\d)\.", r"backbone.layer{0}.\2.conv\3."),
    (r"backbone\.fpn_lateral(\d)\.norm\.", r"neck.lateral_convs.{1}.bn."),
    (r"backbone\.fpn_lateral(\d)\.", r"neck.lateral_convs.{1}.conv."),
    (r"backbone\.fpn_output(\d)\.norm\.", r"neck.fpn_convs.{1}.bn."),
    (r"backbone\.fpn_output(\d)\.", r"neck.fpn_convs.{1}.conv."),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"proposal_generator\.rpn_head\.conv\.", r"rpn_head.rpn_conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", r"rpn_head.rpn_cls."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", r"rpn_head.rpn_reg."),
)
"""Pattern at the beginning of a detectron2 name, and what takes its place; `{0}` is the stage number less 1, `{1}` the
pyramid level less 2."""

PARTS = ("backbone.", "proposal_generator.")


def is_proposal_network(tensors: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Tell whether there is a detectron2 proposal network below `prefix` (`offline_` inside detectors)."""
    return f"{prefix}proposal_generator.rpn_head.objectness_logits.weight" in tensors


def convert_proposals(tensors: Mapping[str, Tensor], prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert the proposal network below `prefix`; all other tensors (a detector's heads) are left alone.

    Returns:
        The config for `build_proposals`, and the tensors under mmdet's names.

    Raises:
        UsageError: Another kind of network, or missing, unknown or misshapen tensors.
    """
    ours = {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(tuple(prefix + part for part in PARTS)) and ".anchor_generator." not in key
    }
    config = {"type": _kind(ours)}
    renamed = {mmdet_name(key): value for key, value in ours.items()}
    shapes = shapes_of(build_proposals(dict(config)).state_dict())
    check(renamed, shapes, f"This {config['type']} proposal network")
    return config, with_counters(renamed, shapes)


def mmdet_name(key: str) -> str:
    """Return mmdet's name for a detectron2 name; a name that no rule knows comes back as it is."""
    for pattern, replacement in RENAMES:
        match = re.match(pattern, key)
        if match:
            number = match.group(1) if match.groups() else "0"
            start = match.expand(replacement)
            return start.format(int(number) - 1, int(number) - 2) + key[match.end() :]
    return key


def _kind(tensors: Mapping[str, Tensor]) -> str:
    """Return the type of proposal network, told apart by the names of its parts."""
    if "backbone.stem.conv1.weight" in tensors:
        return "rpn-c4"
    if "backbone.bottom_up.stem.conv1.weight" in tensors:
        return "rpn-fpn-lsj" if "proposal_generator.rpn_head.conv.conv0.weight" in tensors else "rpn-fpn"
    raise UsageError(
        f"This proposal network does not use an ImageNet ResNet-50 backbone ({few(sorted(tensors))}).",
        "Supported RegionCLIP files: rpn_lvis_866, rpn_lvis_866_lsj, rpn_coco_48, rpn_coco_65 and rpn_coco_80.",
    )
