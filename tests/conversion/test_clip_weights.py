import math

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from regionclip_cli.conversion.clip import export_open_clip, from_open_clip
from regionclip_cli.conversion.convert import convert
from regionclip_cli.conversion.shapes import clip_shapes
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.model_card import ModelCard, read_card
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.vision.backbones.build import clip_config


def of_shapes(shapes):
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "tiny-pyramid"])  # regionclip-tiny's tensors
def test_every_backbone_is_recognised_by_its_tensors(name):
    shapes = clip_shapes(clip_config(BACKBONES[name]))
    found, config, tensors = from_open_clip(of_shapes(shapes))
    assert (found, config) == (name, None)
    assert set(tensors) == {f"clip.{key}" for key in shapes}


def test_openai_facts_and_missing_scale_and_counters():
    shapes = clip_shapes(clip_config(BACKBONES["clip-rn50"]))
    state = {key: value for key, value in of_shapes(shapes).items() if "num_batches" not in key}
    del state["logit_scale"]
    state |= {"input_resolution": torch.tensor(224), "vocab_size": torch.tensor(49408)}
    _, _, tensors = from_open_clip(state)
    assert set(tensors) == {f"clip.{key}" for key in shapes}
    assert float(tensors["clip.logit_scale"]) == pytest.approx(math.log(100))
    assert tensors["clip.visual.bn1.num_batches_tracked"].dtype == torch.int64


def test_plain_gelu_is_kept_in_the_card():
    shapes = clip_shapes(clip_config(BACKBONES["clip-vit-b-32"]))
    _, config, _ = from_open_clip(of_shapes(shapes), gelu=True)
    assert config is not None
    assert not config.get("quick_gelu")


def test_timm_tower_of_another_kind_is_refused():
    shapes = clip_shapes(clip_config(BACKBONES["clip-convnext-base"]))
    state = of_shapes(shapes) | {"visual.trunk.stem.0.weight": torch.ones(96, 3, 4, 4)}
    with pytest.raises(UsageError, match="image tower"):
        from_open_clip(state)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("half", [False, True])
def test_out_to_open_clip_and_back(tiny_backbone, tmp_path, suffix, half):
    """A file comes in, goes out as open_clip's, is loaded strictly by open_clip, and comes in again unchanged."""
    torch.save(tiny_backbone, tmp_path / "in.pth")
    first = convert(tmp_path / "in.pth", "toy", half=half)
    assert (first.kind, first.card.backbone, first.card.parts) == ("CLIP weights", "toy-resnet", ("visual", "text"))
    path = write_model(tmp_path / "toy.safetensors", first.card, first.tensors)
    assert export_open_clip(path, tmp_path / f"out{suffix}") == len(tiny_backbone)
    out = tmp_path / f"out{suffix}"
    state = load_file(out) if suffix == ".safetensors" else torch.load(out, weights_only=True)
    model = open_clip.CLIP(**clip_config(BACKBONES["toy-resnet"]))
    model.load_state_dict(state, strict=True)
    for key, value in model.state_dict().items():
        assert torch.allclose(value, tiny_backbone[key], atol=1e-3 if half else 0), key
    again = convert(out, "again")
    assert all(torch.equal(again.tensors[key], value.to(again.tensors[key])) for key, value in first.tensors.items())


def test_half_spares_vectors_and_what_overflows(tiny_backbone, tmp_path):
    tiny_backbone["visual.conv1.weight"][0, 0, 0, 0] = 1e6
    torch.save({"state_dict": tiny_backbone}, tmp_path / "in.pth")
    tensors = convert(tmp_path / "in.pth", "toy", half=True).tensors
    assert tensors["clip.visual.conv1.weight"].dtype == torch.float32
    assert tensors["clip.visual.conv2.weight"].dtype == torch.float16
    assert tensors["clip.visual.bn1.running_var"].dtype == torch.float32
    assert tensors["clip.visual.bn1.num_batches_tracked"].dtype == torch.int64
    full = convert(tmp_path / "in.pth", "toy").tensors
    assert {value.dtype for value in full.values()} == {torch.float32, torch.int64}


def test_half_weights_are_widened(tiny_backbone, tmp_path):
    torch.save({key: value.half() for key, value in tiny_backbone.items()}, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", "toy").tensors["clip.text_projection"].dtype == torch.float32


def test_our_own_file_gets_the_new_name(tiny_backbone, tmp_path):
    card = ModelCard(name="old", backbone="toy-resnet", parts=("visual", "text"), conf=0.3, licence="MIT")
    path = write_model(tmp_path / "x.safetensors", card, {f"clip.{key}": v for key, v in tiny_backbone.items()})
    found = convert(path, "new")
    assert found.kind == "regionclip model file"
    assert found.card == card.model_copy(update={"name": "new"})
    assert torch.equal(found.tensors["clip.text_projection"], tiny_backbone["text_projection"])


def test_facts_are_kept(tiny_backbone, tmp_path):
    torch.save(tiny_backbone, tmp_path / "in.pth")
    found = convert(tmp_path / "in.pth", "toy", facts={"licence": "MIT", "source": "here"})
    assert (found.card.licence, found.card.source) == ("MIT", "here")
    assert found.parameters == sum(value.numel() for value in tiny_backbone.values())


def test_export_needs_both_towers_and_a_known_ending(tiny_backbone, tmp_path):
    card = ModelCard(name="eyes", backbone="toy-resnet", parts=("visual",))
    path = write_model(tmp_path / "eyes.safetensors", card, {"clip.visual.conv1.weight": torch.ones(1)})
    with pytest.raises(MissingError, match="has no text tower"):
        export_open_clip(path, tmp_path / "out.pt")
    with pytest.raises(UsageError, match="must end in"):
        export_open_clip(path, tmp_path / "out.onnx")
    assert read_card(path) == card


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch.ones(65, 1024), "tensor.*--names"),
        ({"encoder.w": torch.ones(1), "decoder.w": torch.ones(1)}, r"encoder \(1\)"),
        ({"backbone.conv1.weight": torch.ones(1)}, "backbone"),
    ],
)
def test_unknown_files_are_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(UsageError, match=sentence):
        convert(tmp_path / "in.pth", "x")
