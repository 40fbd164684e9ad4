import math
import re

import pytest
import torch
from checkpoint_toys import finetuned, mark, without

from regionclip_cli.conversion.clip import below
from regionclip_cli.conversion.official import convert_finetuned, convert_pretraining
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.backbones import BACKBONES
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.vision.backbones.build import build_clip, clip_config


def test_every_official_tensor_arrives_once(official):
    tensors, backbone = official
    fields, found = convert_pretraining(tensors)
    assert fields["backbone"] == fields["teacher"] == backbone
    assert fields["proposals"] == {"type": "rpn-fpn"}
    assert set(fields["parts"]) == {"visual", "text", "proposals", "teacher"}
    kept = {key: value for key, value in found.items() if not key.endswith(("num_batches_tracked", "logit_scale"))}
    assert sorted(mark(value) for value in kept.values()) == list(range(len(tensors)))
    for key, value in kept.items():
        if key.startswith("clip.visual."):
            source = "backbone." + key.removeprefix("clip.visual.")
        elif key.startswith("teacher.visual."):
            source = "teacher_backbone." + key.removeprefix("teacher.visual.")
        elif key.startswith("clip."):
            source = "lang_encoder." + key.removeprefix("clip.")
        else:
            continue
        assert torch.equal(value, tensors[source]), key
    assert float(found["clip.logit_scale"]) == pytest.approx(math.log(100))


def test_open_clip_loads_it_strictly(official):
    tensors, backbone = official
    _, found = convert_pretraining(tensors)
    state = below(found, "clip.")
    model = build_clip(clip_config(BACKBONES[backbone]), empty=True)
    model.load_state_dict(state, strict=True, assign=True)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert mark(loaded["visual.attnpool.c_proj.bias"]) == mark(tensors["backbone.attnpool.c_proj.bias"])


@pytest.mark.parametrize(
    ("remove", "add", "sentence"),
    [
        ("backbone.layer3.0.conv1.weight", None, r"1 missing \(layer3.0.conv1.weight\)"),
        ("lang_encoder.ln_final.bias", None, r"1 missing \(ln_final.bias\)"),
        ("offline_backbone.fpn_output3.bias", None, r"1 missing \(neck.fpn_convs.1.conv.bias\)"),
        ("teacher_backbone.bn1.bias", "teacher_backbone.bn1.offset", r"1 missing.*1 unknown \(bn1.offset\)"),
        (None, "decoder.weight", r"1 unknown \(decoder.weight\)"),
        (None, "lang_encoder.extra", r"1 unknown \(extra\)"),
    ],
)
def test_what_does_not_fit_is_named(official_rn50, remove, add, sentence):
    official_rn50.pop(remove, None)
    if add:
        official_rn50[add] = torch.ones(64)
    with pytest.raises(UsageError, match=sentence):
        convert_pretraining(official_rn50)


def test_long_lists_are_cut(official_rn50):
    tensors = {key: value for key, value in official_rn50.items() if "resblocks.7." not in key}
    with pytest.raises(UsageError, match=re.escape("12 missing (transformer.resblocks.7.") + r".*, \.\.\.\)"):
        convert_pretraining(tensors)


def test_another_shape_is_named(official_rn50):
    official_rn50["lang_encoder.text_projection"] = torch.ones(512, 640)
    with pytest.raises(UsageError, match=r"1 of another shape \(text_projection is \(512, 640\) instead of"):
        convert_pretraining(official_rn50)


def test_unknown_tower_is_described(official_rn50):
    official_rn50["backbone.attnpool.c_proj.weight"] = torch.ones(7, 2048)
    with pytest.raises(UsageError, match=r"ResNet with layers \(3, 4, 6, 3\), width 64, images of 224 px and 7 dim"):
        convert_pretraining(official_rn50)


def test_the_copy_of_clip_that_pretraining_starts_from(official_rn50):
    clip = {k: v for k, v in official_rn50.items() if k.startswith(("backbone.", "lang_encoder."))}
    both = dict(clip) | {"logit_scale": torch.tensor(3.0), "input_resolution": torch.tensor(224)}
    both |= {f"teacher_{key}": value for key, value in clip.items()} | {"teacher.logit_scale": torch.tensor(3.0)}
    fields, found = convert_pretraining(both)
    assert fields["parts"] == ["visual", "text"]
    assert "teacher" not in fields
    assert float(found["clip.logit_scale"]) == 3
    assert not any(key.startswith("teacher") for key in found)


def test_finetuned_detector(official):
    tensors, backbone = official
    spec = BACKBONES[backbone]
    channels = 2 * spec.channels
    fields, found = convert_finetuned(finetuned(tensors, spec.embed_dim, 866, 1203, channels), None)
    assert set(fields["parts"]) == {"visual", "proposals", "box_head", "classifier", "mask_head"}
    assert mark(found["box_head.weight"]) == 7003
    assert found["box_head.bias"].shape == (4,)
    assert (found["classifier.train"].shape[0], mark(found["classifier.train"])) == (866, 7001)
    assert (found["classifier.test"].shape[0], mark(found["classifier.test"])) == (1203, 7002)
    assert found["mask_head.deconv.weight"].shape[0] == channels
    assert not any("transformer" in key for key in found)


def test_finetuned_detector_without_proposals(official_rn50):
    fields, _ = convert_finetuned(without(finetuned(official_rn50, 1024), "offline_"), None)
    assert "proposals" not in fields


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("box_predictor.bbox_pred.weight", torch.ones(320, 1024), "80 boxes"),
        ("box_predictor.cls_bg_score.weight", torch.ones(1, 1024), "background embedding"),
        ("box_predictor.bbox_pred.bias", torch.ones(5), "of another shape"),
        ("mask_head.deconv.bias", torch.ones(256), "mask head.*3 missing"),
        ("keypoint_head.weight", torch.ones(3), "keypoint_head.weight"),
    ],
)
def test_other_heads_are_refused(official_rn50, key, value, sentence):
    tensors = finetuned(official_rn50, 1024) | {f"roi_heads.{key}": value}
    with pytest.raises(UsageError, match=sentence):
        convert_finetuned(tensors, None)


def text_model(path, name, parts=("visual", "text")):
    config = clip_config(BACKBONES[name])
    shapes = build_clip(config, empty=True).state_dict()
    tensors = {
        f"clip.{key}": torch.full((), 5.0, dtype=torch.float16).expand(value.shape)
        for key, value in shapes.items()
        if not key.startswith("visual.") and "token_embedding" not in key
    }
    return write_model(path, ModelCard(name=path.stem, backbone=name, parts=parts), tensors)


def test_text_tower_is_taken_from_another_model(official_rn50, tmp_path):
    source = text_model(tmp_path / "words.safetensors", "clip-rn50")
    fields, found = convert_finetuned(finetuned(official_rn50, 1024), source)
    assert "text" in fields["parts"]
    assert fields["clip"] is None
    assert fields["texts"] == "words"
    assert mark(found["clip.text_projection"]) == 5


def test_text_tower_of_another_dimension_is_refused(official_rn50, tmp_path):
    source = text_model(tmp_path / "words.safetensors", "clip-rn101")
    with pytest.raises(UsageError, match=r"512.*1024"):
        convert_finetuned(finetuned(official_rn50, 1024), source)


def test_text_tower_that_is_not_there(official_rn50, tmp_path):
    source = text_model(tmp_path / "words.safetensors", "clip-rn50", parts=("visual",))
    with pytest.raises(MissingError, match="no text encoder"):
        convert_finetuned(finetuned(official_rn50, 1024), source)


def test_text_tower_of_another_width_brings_its_config(official_rn50, tmp_path):
    source = text_model(tmp_path / "words.safetensors", "clip-rn50x64")
    fields, _ = convert_finetuned(finetuned(official_rn50, 1024), source)
    assert fields["clip"]["text_cfg"]["width"] == 1024
    assert fields["clip"]["vision_cfg"]["layers"] == [3, 4, 6, 3]
