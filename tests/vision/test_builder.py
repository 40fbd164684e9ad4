"""Model files to detectors and back, and what is said about files that do not fit."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from safetensors import safe_open
from toys import DIM, TEXT, VISION, draw_shapes, toy_clip, toy_proposals, toy_state, write_toy_model

from regionclip_cli.errors import MissingError, RegionClipError, UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.vision import model_io


def detect(detector, seed=0):
    detector.set_concepts(torch.eye(3, DIM))
    image = torch.from_numpy(draw_shapes(seed)[0]).permute(2, 0, 1)
    sample = DetDataSample(metainfo={"img_shape": tuple(image.shape[1:])})
    return detector.test_step({"inputs": [image], "data_samples": [sample]})[0].pred_instances


@pytest.mark.parametrize("family", list(VISION))
def test_toy_models_are_small_whole_and_repeatable(tmp_path, family):
    path = write_toy_model(tmp_path / "toy.safetensors", family)
    assert path.stat().st_size < 2_000_000
    detector, card = model_io.load_detector(path)
    assert (card.name, card.backbone) == ("toy", VISION[family][0])
    assert not detector.training
    assert {p.dtype for p in detector.parameters()} == {torch.float32}
    assert detector.classifier.temperature == card.temperature
    assert len(detect(detector))
    again = model_io.read_tensors(write_toy_model(tmp_path / "again.safetensors", family), "")
    assert again
    assert all(torch.equal(value, again[key]) for key, value in model_io.read_tensors(path, "").items())


def test_what_is_saved_is_what_is_loaded(tmp_path):
    extra = {"box_head.weight": 0.01 * torch.randn(4, DIM), "box_head.bias": torch.zeros(4)}
    detector, card = model_io.load_detector(write_toy_model(tmp_path / "toy.safetensors", extra=extra))
    assert detector.box_head is not None
    write_model(tmp_path / "copy.safetensors", card, model_io.detector_tensors(detector))
    again, _ = model_io.load_detector(tmp_path / "copy.safetensors")
    assert detector.state_dict().keys() == again.state_dict().keys()
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    torch.testing.assert_close(detect(again).scores, detect(detector).scores)


def test_the_text_tower_is_not_read(tmp_path, monkeypatch):
    path = write_toy_model(tmp_path / "toy.safetensors")
    read = []

    class Watched:
        def __init__(self, *args, **kwargs):
            self.file = safe_open(*args, **kwargs)

        def __enter__(self):
            self.open = self.file.__enter__()
            return self

        def __exit__(self, *details):
            return self.file.__exit__(*details)

        def keys(self):
            return self.open.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.open.get_tensor(name)

    monkeypatch.setattr(model_io, "safe_open", Watched)
    model_io.load_detector(path)
    assert read
    assert {name.split(".")[0] for name in read} == {"clip", "proposals"}
    assert all(name.startswith("clip.visual.") for name in read if name.startswith("clip"))


def test_networks_can_be_loaded_in_bfloat16(tmp_path):
    detector, _ = model_io.load_detector(write_toy_model(tmp_path / "toy.safetensors"), dtype=torch.bfloat16)
    assert detector.backbone.dtype == torch.bfloat16
    assert detect(detector).scores.dtype == torch.float32


def test_models_load_after_a_runner_has_set_its_scope(tmp_path):
    with DefaultScope.overwrite_default_scope("mmengine"):
        detector, _ = model_io.load_detector(write_toy_model(tmp_path / "toy.safetensors"))
        assert len(detect(detector))
        assert model_io.build_proposals({"type": "rpn-c4"}) is not None


def test_without_a_proposal_network_boxes_must_come_from_outside(tmp_path):
    detector, _ = model_io.load_detector(write_toy_model(tmp_path / "toy.safetensors", proposals=False))
    with pytest.raises(RegionClipError, match="proposes no boxes of its own"):
        detect(detector)


def test_a_proposal_network_can_be_borrowed(tmp_path, monkeypatch):
    plain = write_toy_model(tmp_path / "plain.safetensors", proposals=False)
    with pytest.raises(MissingError, match=r"other\.safetensors holds no proposal network"):
        model_io.load_detector(plain, proposals_from=write_toy_model(tmp_path / "other.safetensors", proposals=False))
    head, _ = model_io.load_detector(plain, proposals_from=write_toy_model(tmp_path / "head.safetensors"))
    assert len(detect(head))
    grid = ModelCard(name="grid", kind="proposals", proposals={"type": "grid"}, parts=("proposals",))
    write_model(tmp_path / "grid.safetensors", grid, {})
    detector, _ = model_io.load_detector(plain, proposals_from=tmp_path / "grid.safetensors")
    assert len(detect(detector))
    with pytest.raises(UsageError, match="no image encoder"):
        model_io.load_detector(tmp_path / "grid.safetensors")


def test_a_file_without_a_teacher_says_so(tmp_path):
    path = write_toy_model(tmp_path / "toy.safetensors")
    with pytest.raises(MissingError, match="no teacher"):
        model_io.load_teacher(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("clip.visual.layer1.0.conv1.weight"), r"1 missing \(clip.visual.layer1.0.conv1.weight\)"),
        (lambda s: s.update({"clip.visual.layer9.bias": torch.zeros(1)}), r"1 unexpected \(clip.visual.layer9.bias\)"),
        (lambda s: s.update({"clip.visual.conv1.weight": torch.zeros(2, 3, 3, 3)}), "size mismatch for conv1.weight"),
        (lambda s: s.pop(next(key for key in s if key.startswith("proposals."))), "1 missing .proposals."),
        (lambda s: s.update({"box_head.weight": torch.zeros(4, DIM)}), "1 missing .box_head.bias"),
    ],
)
def test_a_file_that_does_not_fit_is_explained(tmp_path, change, words):
    state = toy_state()
    change(state)
    card = ModelCard(name="toy", backbone="clip-rn50", clip=toy_clip(), proposals=toy_proposals(), parts=("visual",))
    write_model(tmp_path / "toy.safetensors", card, state)
    with pytest.raises(UsageError, match=words) as caught:
        model_io.load_detector(tmp_path / "toy.safetensors")
    assert "toy.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(MissingError):
        model_io.load_detector(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors in here")
    with pytest.raises(UsageError):
        model_io.load_detector(tmp_path / "text.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        model_io.read_tensors(tmp_path / "text.safetensors", "clip.")


def test_the_toys_have_a_text_tower(tmp_path):
    path = write_toy_model(tmp_path / "toy.safetensors")
    assert model_io.read_tensors(path, "clip.token_embedding.")["weight"].shape == (TEXT["vocab_size"], TEXT["width"])
    assert model_io.read_tensors(path, "clip.text_projection")[""].shape == (TEXT["width"], DIM)
