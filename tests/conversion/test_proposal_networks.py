import pytest
import torch
from checkpoint_toys import mark, proposal_network, without

from regionclip_cli.conversion.convert import convert
from regionclip_cli.conversion.proposal_networks import convert_proposals, is_proposal_network, mmdet_name
from regionclip_cli.errors import UsageError
from regionclip_cli.vision.proposals.build import build_proposals


@pytest.fixture
def fpn(official_rn50):
    """rpn_lvis_866: a whole Mask R-CNN job, of which backbone and proposal generator matter."""
    return proposal_network(official_rn50)


@pytest.fixture
def c4(fpn):
    """rpn_coco_*: no pyramid, `layer4` belongs to the heads, 15 anchors."""
    found = {key.replace("bottom_up.", ""): value for key, value in fpn.items() if ".fpn_" not in key}
    found = {key.replace("backbone.res5", "roi_heads.res5"): value for key, value in found.items()}
    head = {"conv": (1024, 3), "objectness_logits": (15, 1), "anchor_deltas": (60, 1)}
    for number, (name, (channels, size)) in enumerate(head.items()):
        key = f"proposal_generator.rpn_head.{name}"
        found[f"{key}.weight"] = torch.tensor(8000.0 + number).expand(channels, 1024, size, size)
        found[f"{key}.bias"] = torch.tensor(8010.0 + number).expand(channels)
    return found


@pytest.fixture
def lsj(fpn):
    """rpn_lvis_866_lsj: norms (with step counters) instead of biases in the pyramid, two convolutions in the head."""
    norm = {"weight": 256, "bias": 256, "running_mean": 256, "running_var": 256}
    found = {}
    for key, value in fpn.items():
        if ".fpn_" in key and key.endswith(".bias"):
            stem = key.removesuffix("bias") + "norm."
            found |= {stem + name: torch.tensor(9000.0 + i).expand(n) for i, (name, n) in enumerate(norm.items())}
            found[stem + "num_batches_tracked"] = torch.tensor(7)
        elif ".rpn_head.conv." in key:
            for number in (0, 1):
                found[key.replace("conv.", f"conv.conv{number}.")] = value + 9500 + number
        else:
            found[key] = value
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.bottom_up.stem.conv1.weight", "backbone.conv1.weight"),
        ("backbone.bottom_up.stem.conv1.norm.bias", "backbone.bn1.bias"),
        ("backbone.stem.conv1.weight", "backbone.conv1.weight"),
        ("backbone.bottom_up.res2.0.shortcut.weight", "backbone.layer1.0.downsample.0.weight"),
        ("backbone.bottom_up.res5.0.shortcut.norm.running_var", "backbone.layer4.0.downsample.1.running_var"),
        ("backbone.res4.5.conv3.norm.weight", "backbone.layer3.5.bn3.weight"),
        ("backbone.bottom_up.res3.1.conv2.weight", "backbone.layer2.1.conv2.weight"),
        ("backbone.fpn_lateral2.weight", "neck.lateral_convs.0.conv.weight"),
        ("backbone.fpn_lateral5.norm.weight", "neck.lateral_convs.3.bn.weight"),
        ("backbone.fpn_output4.bias", "neck.fpn_convs.2.conv.bias"),
        ("proposal_generator.rpn_head.conv.weight", "rpn_head.rpn_conv.weight"),
        ("proposal_generator.rpn_head.conv.conv1.bias", "rpn_head.rpn_conv.1.conv.bias"),
        ("proposal_generator.rpn_head.objectness_logits.bias", "rpn_head.rpn_cls.bias"),
        ("proposal_generator.rpn_head.anchor_deltas.weight", "rpn_head.rpn_reg.weight"),
        ("backbone.something.else", "backbone.something.else"),
    ],
)
def test_names(name, expected):
    assert mmdet_name(name) == expected


@pytest.mark.parametrize("kind", ["fpn", "c4", "lsj"])
def test_each_kind_fills_its_network(kind, request):
    tensors = request.getfixturevalue(kind)
    config, found = convert_proposals(tensors)
    assert config == {"type": {"fpn": "rpn-fpn", "c4": "rpn-c4", "lsj": "rpn-fpn-lsj"}[kind]}
    network = build_proposals(config)
    network.load_state_dict(found, strict=True)
    loaded = network.state_dict()
    for key, value in tensors.items():
        if key.startswith(("backbone.", "proposal_generator.rpn_head.")):
            assert mark(loaded[mmdet_name(key)]) == mark(value), key


def test_anchors_are_in_the_same_order(c4):
    """detectron2 numbers the anchors of a cell by size, then by shape: the converted channels must mean the same."""
    config, _ = convert_proposals(c4)
    (anchors,) = build_proposals(config).rpn_head.prior_generator.grid_priors([(1, 1)], device="cpu")
    sizes = torch.tensor([32.0, 64, 128, 256, 512]).repeat_interleave(3)
    ratios = torch.tensor([0.5, 1, 2]).repeat(5)
    width, height = sizes / ratios.sqrt(), sizes * ratios.sqrt()
    expected = torch.stack([-width / 2, -height / 2, width / 2, height / 2], 1)
    assert torch.allclose(anchors, expected, atol=1e-3)


def test_a_whole_job_in_a_file(fpn, tmp_path):
    torch.save({"model": fpn, "iteration": 89999, "optimizer": {"state": {}}}, tmp_path / "rpn_lvis_866.pth")
    found = convert(tmp_path / "rpn_lvis_866.pth", "rpn")
    assert (found.card.kind, found.card.parts, found.card.backbone) == ("proposals", ("proposals",), None)
    assert found.card.proposals == {"type": "rpn-fpn"}
    assert all(key.startswith("proposals.") for key in found.tensors)


def test_missing_and_unknown_tensors_are_named(fpn, c4, lsj):
    fpn.pop("proposal_generator.rpn_head.anchor_deltas.bias")
    with pytest.raises(UsageError, match=r"rpn-fpn.*1 missing \(rpn_head.rpn_reg.bias\)"):
        convert_proposals(fpn)
    with pytest.raises(UsageError, match=r"1 unknown \(backbone.res6.weight\)"):
        convert_proposals(c4 | {"backbone.res6.weight": torch.ones(1)})
    with pytest.raises(UsageError, match=r"of another shape \(neck.fpn_convs.0.bn.bias is \(3,\)"):
        convert_proposals(lsj | {"backbone.fpn_output2.norm.bias": torch.ones(3)})


def test_a_network_on_clip_is_refused(fpn):
    tensors = without(fpn, "backbone.bottom_up.stem") | {"backbone.bottom_up.conv1.weight": torch.ones(1)}
    assert is_proposal_network(tensors)
    with pytest.raises(UsageError, match="ResNet-50"):
        convert_proposals(tensors)
