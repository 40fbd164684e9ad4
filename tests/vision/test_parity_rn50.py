"""RegionCLIP RN50: every number of the official code, from a checkpoint in the released layout.

One table says how we compute each array of the fixture. An array that is not in the table fails, and so does an entry
of the table without an array.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from parity import Loaded, convert_official, embeddings, official, weights

from regionclip_cli.language.templates import fill, templates
from regionclip_cli.language.text_encoder import TextEncoder
from regionclip_cli.vision import losses
from regionclip_cli.vision.classifier import ConceptClassifier, match_concepts
from regionclip_cli.vision.proposals.build import build_proposals
from regionclip_cli.vision.roi_training import RoiTraining, Sampled, classification_loss

EXPECTED = official("rn50")
PHRASES = ("cat", "kettle", "tennis racket")
D = 1024


@pytest.fixture(scope="module")
def model() -> Iterator[Loaded]:
    with tempfile.TemporaryDirectory() as folder:
        yield Loaded(convert_official(Path(folder), "rn50"), EXPECTED)


def trunk(model: Loaded) -> torch.Tensor:
    return model.features[0, ::32]


def given_boxes(model: Loaded) -> torch.Tensor:
    sample = model.sample()
    sample.proposals = InstanceData(bboxes=model.boxes)
    return build_proposals({"type": "given"})(model.image[None].float(), [sample], None)[0].boxes


def classifier() -> ConceptClassifier:
    made = ConceptClassifier()
    made.set_concepts(embeddings("class_embeddings", 20, D))
    return made


def proposals(model: Loaded):
    model.detector.set_scoring("official")
    with torch.no_grad():
        return model.detector.propose(model.image[None].float(), [model.sample()], model.features)[0]


def softened(model: Loaded) -> InstanceData:
    """Return soft-NMS's detections; those whose official scores differ by rounding alone stand in the official order.

    The scores at ranks 38 and 39 are 4e-7 apart, so which comes first depends on the processor.
    """
    boxes, scores = torch.from_numpy(EXPECTED["softnms_boxes"]), torch.from_numpy(EXPECTED["softnms_scores"])
    ours = model.softened
    far = torch.cdist(boxes, ours.bboxes, p=1) + 1e6 * ((scores[:, None] - ours.scores).abs() > 2e-6)
    return ours[far.argmin(dim=1)]


def boxes_in_their_order(model: Loaded) -> torch.Tensor:
    """Our proposals, each at the place of the official one that it is; only equal objectness may change places."""
    boxes, logits = proposals(model)
    theirs = torch.from_numpy(EXPECTED["proposal_boxes"])
    place = (boxes[:, None] - theirs).abs().amax(dim=2).argmin(dim=1)
    assert torch.equal(place.sort().values, torch.arange(len(theirs)))
    torch.testing.assert_close(logits, torch.from_numpy(EXPECTED["proposal_logits"])[place], rtol=0, atol=1e-4)
    return boxes[place.argsort()]


def labels() -> torch.Tensor:
    return torch.tensor([0, 3, 20, 20, 5, 20, 7, 1])


def matched(model: Loaded) -> torch.Tensor:
    return match_concepts(model.teacher_regions, embeddings("concept_embeddings", 50, D))


def distillation(model: Loaded) -> torch.Tensor:
    return losses.region_distillation(model.regions, embeddings("concept_embeddings", 50, D), matched(model))


def contrast(model: Loaded) -> torch.Tensor:
    targets = matched(model).argmax(dim=1)
    return losses.concept_contrastive(model.regions, embeddings("concept_embeddings", 50, D), targets)


def image_text(model: Loaded) -> torch.Tensor:
    images = embeddings("it_image", 6, D)
    return losses.image_text(images, 0.3 * embeddings("it_text", 6, D) + images)


def text_encoder(model: Loaded) -> TextEncoder:
    return TextEncoder(model.path, cache=None)


def first_tokens(model: Loaded) -> torch.Tensor:
    return text_encoder(model).tokenize([fill(templates("clip-81")[0], phrase) for phrase in PHRASES])


OURS: dict[str, Callable[[Loaded], object]] = {
    "image": lambda model: weights.image("photo7", 192, 320, 64),
    "boxes": given_boxes,
    "res4": trunk,
    "region_embeddings": lambda model: model.regions,
    "region_probs": lambda model: classifier()(model.regions).softmax(dim=1),
    "proposal_boxes": boxes_in_their_order,
    "proposal_logits": lambda model: proposals(model).logits,
    "zeroshot_boxes": lambda model: model.zeroshot.bboxes,
    "zeroshot_scores": lambda model: model.zeroshot.scores,
    "zeroshot_classes": lambda model: model.zeroshot.labels,
    "softnms_boxes": lambda model: softened(model).bboxes,
    "softnms_scores": lambda model: softened(model).scores,
    "softnms_classes": lambda model: softened(model).labels,
    "finetune_labels": lambda model: labels(),
    "finetune_focal_loss": lambda model: losses.focal_scaled_cross_entropy(classifier()(model.regions), labels()),
    "finetune_ce_loss_bg08": lambda model: losses.weighted_cross_entropy(classifier()(model.regions), labels()),
    "pretrain_teacher_probs": matched,
    "pretrain_target": lambda model: matched(model).argmax(dim=1),
    "pretrain_loss_distill": distillation,
    "pretrain_loss_contrastive": contrast,
    "image_text_loss": image_text,
    "text_names": lambda model: np.array(PHRASES),
    "text_tokens_first_template": first_tokens,
    "text_embedding_first_template": lambda model: text_encoder(model).encode_tokens(first_tokens(model)),
    "text_embedding_mean81": lambda model: text_encoder(model).encode(PHRASES, "clip-81"),
}


def test_every_array_is_checked():
    assert set(OURS) == set(EXPECTED)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_array(model: Loaded, name: str) -> None:
    ours, theirs = np.asarray(OURS[name](model)), EXPECTED[name]
    assert ours.shape == theirs.shape
    if theirs.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs)
        return
    assert ours.dtype == np.float32
    looser = name.endswith(("scores", "loss", "loss_bg08")) or "_loss_" in name
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 if looser else 1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("finetune_focal_loss", RoiTraining()),
        ("finetune_ce_loss_bg08", RoiTraining(loss="weighted", background_weight=0.8)),
    ],
)
def test_the_detectors_own_loss_is_the_official_one(model: Loaded, name: str, settings: RoiTraining) -> None:
    objects, given = labels() < 20, torch.zeros(8, 4)
    order = torch.cat([objects.nonzero(), (~objects).nonzero()]).flatten()  # a detector samples objects first
    sampled = [Sampled(given, labels()[objects], given[objects], torch.arange(int(objects.sum())))]
    loss = classification_loss(classifier()(model.regions[order]), sampled, 20, settings)
    np.testing.assert_allclose(loss.item(), EXPECTED[name], rtol=1e-3, atol=1e-3)


def test_the_fast_and_the_plain_way_to_embed_regions_agree_on_the_real_network(model: Loaded) -> None:
    encoder = model.detector.region_encoder.encoder
    with torch.no_grad():
        fast = encoder(model.features, [model.boxes])
        encoder.path = "plain"
        plain = encoder(model.features, [model.boxes])
        encoder.path = "auto"
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
