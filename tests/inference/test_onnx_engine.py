"""The ONNX engine against the torch engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import DIM, draw_shapes, toy_clip, toy_state, write_toy_model

from regionclip_cli import Detector
from regionclip_cli.conversion.onnx_export import export_graphs
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.graphs import graph_path
from regionclip_cli.hub.model_card import ModelCard, fingerprint
from regionclip_cli.hub.model_file import write_model
from regionclip_cli.hub.store import resolve
from regionclip_cli.inference.engines.sessions import Graph
from regionclip_cli.language.tokenizer import tokenize
from regionclip_cli.vision.proposals.build import build_proposals

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "mmdet", "mmengine", "mmcv", "open_clip", "timm", "supervision", "matplotlib")
BARE = ("visual", "text")
PARTS = ("trunk", "proposals", "regions", "text")
NAMES = {"cat": "cat", "kettle": ["pot", "can"], "dog": "dog"}


@pytest.fixture(scope="module", params=["resnet", "timm", "convnext", "vit"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy model with graphs beside it."""
    path = write_toy_model(tmp_path_factory.mktemp("model") / "toy.safetensors", request.param, conf=0.01)
    export_graphs(path, path.with_suffix(".onnx"), share_weights=True)
    return path


def same_detections(model: Path | str, image: Any, distractors: Sequence[str] = ("bird",), **options: Any) -> int:
    """Compare both engines on an image and return the number of detections."""
    names = NAMES if distractors else list(NAMES)
    one, other = (
        Detector(model, engine=engine, device="cpu").set_classes(names, distractors) for engine in ("torch", "onnx")
    )
    found, expected = other.detect(image, **options), one.detect(image, **options)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    for box, score, index in zip(expected.boxes, expected.scores, expected.ids, strict=True):
        near = np.abs(found.boxes - box).max(axis=1) < 1e-2
        assert (near & (found.ids == index) & (np.abs(found.scores - score) < 1e-4)).any()
    if len(found):
        regions = [each.embed_regions(image, expected.boxes[:20]).numpy() for each in (other, one)]
        np.testing.assert_allclose(regions[0], regions[1], atol=1e-4 * max(1, np.abs(regions[1]).max()))
    return len(found)


@pytest.mark.parametrize("size", [(64, 96), (150, 100)])
def test_toys_give_the_same_detections(exported: Path, size: tuple[int, int]) -> None:
    image, _, _ = draw_shapes(3, *size)
    assert same_detections(exported, image, conf=0.0, nms="off", max_dets=10_000) > 0


def test_given_boxes_give_the_same_scores(exported: Path) -> None:
    image, boxes, _ = draw_shapes(1)
    assert same_detections(exported, image, boxes=boxes, conf=0.0, nms="off") == 3 * len(boxes)


HEADS: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "box head": ({"box_head.weight": (4, DIM), "box_head.bias": (4,)}, {"parts": (*BARE, "proposals", "box_head")}),
    "linear": (
        {"classifier.train.weight": (4, DIM), "classifier.train.bias": (4,)},
        {
            "classifier": "linear",
            "classes": ("cat", "kettle", "dog"),
            "parts": (*BARE, "proposals", "classifier"),
        },
    ),
}


@pytest.mark.parametrize("head", list(HEADS))
def test_finetuned_heads_give_the_same_detections(head: str, tmp_path: Path) -> None:
    shapes, card = HEADS[head]
    rng = torch.Generator().manual_seed(0)
    extra = {name: torch.randn(shape, generator=rng) / 5 for name, shape in shapes.items()}
    path = write_toy_model(tmp_path / "toy.safetensors", extra=extra, **card)
    export_graphs(path, path.with_suffix(".onnx"))
    distractors = () if head == "linear" else ("bird",)
    assert same_detections(path, draw_shapes(3)[0], distractors, conf=0.0, nms="off", max_dets=10_000) > 0


def test_proposals_from_pixels_are_the_same(tmp_path: Path) -> None:
    proposals = {"type": "rpn-c4", "max_proposals": 50}
    torch.manual_seed(0)
    source = build_proposals(proposals).state_dict()
    state = toy_state(proposals=False) | {f"proposals.{name}": value for name, value in source.items()}
    card = ModelCard(
        name="c4",
        backbone="clip-rn50",
        clip=toy_clip(),
        proposals=proposals,
        parts=(*BARE, "proposals"),
        templates="plain",
        short_side=64,
        max_side=128,
    )
    path = write_model(tmp_path / "c4.safetensors", card, state)
    export_graphs(path, path.with_suffix(".onnx"))
    assert same_detections(path, draw_shapes(3, 75, 131)[0], conf=0.0, nms="off", max_dets=10_000) > 0


def test_packaged_model_gives_the_same_detections() -> None:
    for name in ("cat.jpg", "coffee.jpg"):
        assert same_detections("regionclip-tiny", str(ROOT / "docs" / "photos" / name), conf=0.05) > 0


def test_packaged_graphs_belong_to_the_packaged_weights() -> None:
    """After new weights: `just graphs`."""
    model = resolve("regionclip-tiny")
    for part in PARTS:
        assert Graph(model.with_suffix(".onnx"), part, fingerprint(model)).facts.part == part


def test_packaged_files_fit_the_wheel() -> None:
    folder = resolve("regionclip-tiny").parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 30_000_000


def test_detect_imports_no_torch(tmp_path: Path) -> None:
    probe = (
        "import sys\nfrom regionclip_cli.app import main\ncode = main(sys.argv[2:])\n"
        "print(*sorted(set(sys.argv[1].split(',')) & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    words = ["detect", str(ROOT / "docs/photos/cat.jpg"), "--classes", "cat", "--engine", "onnx", "--out"]
    command = [sys.executable, "-c", probe, ",".join(HEAVY), *words, str(tmp_path / "out"), "--format", "images,coco"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == ""
    assert list((tmp_path / "out").rglob("*.jpg"))
    found = json.loads((tmp_path / "out" / "detections.jsonl").read_text())
    assert found["detections"][0]["label"] == "cat"


def test_exported_model_runs_alone(exported: Path, tmp_path: Path) -> None:
    image, _, _ = draw_shapes(2)
    expected = Detector(exported, engine="torch", device="cpu").set_classes(["cat", "dog"]).detect(image, conf=0.0)
    files = [graph.path for graph in export_graphs(exported, tmp_path / "alone.onnx")]
    assert [path.name for path in files] == ["alone.onnx", *(f"alone.{part}.onnx" for part in PARTS[1:])]
    detector = Detector(files[0]).set_classes(["cat", "dog"])
    assert detector.engine == "onnx"
    np.testing.assert_allclose(detector.detect(image, conf=0.0).scores, expected.scores, atol=1e-4)


def test_auto_takes_graphs_of_the_same_weights_only(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "toy.safetensors")
    assert Detector(path, device="cpu").engine == "torch"
    export_graphs(path, path.with_suffix(".onnx"), half=True)
    assert Detector(path, device="cpu").engine == "onnx"
    assert Detector(path, device="cpu", dtype="bf16").engine == "torch"
    write_toy_model(path, seed=1)
    assert Detector(path, device="cpu").engine == "torch"
    with pytest.raises(UsageError, match="other weights"):
        Detector(path, engine="onnx")


def test_missing_and_damaged_graphs(exported: Path, tmp_path: Path) -> None:
    bare = shutil.copy(exported, tmp_path / "bare.safetensors")
    with pytest.raises(MissingError) as caught:
        Detector(bare, engine="onnx")
    assert "models export" in caught.value.hint
    trunk = export_graphs(exported, tmp_path / "cut.onnx")[0].path
    trunk.write_bytes(trunk.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"cut\.onnx"):
        Detector(trunk)
    trunk.write_bytes(b"")
    with pytest.raises(UsageError, match=r"cut\.onnx"):
        Detector(trunk)
    graph_path(trunk, "regions").unlink()
    shutil.copy(exported.with_suffix(".onnx"), trunk)
    for options in ({"engine": "torch"}, {"device": "cuda"}, {"dtype": "bf16"}):
        with pytest.raises(UsageError):
            Detector(trunk, **options)


def test_missing_onnxruntime(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError, match="onnxruntime"):
        Detector(exported, engine="onnx")


def test_tokens_are_those_of_open_clip() -> None:
    import open_clip

    texts = [
        "a photo of a cat.",
        "it's 5 o'clock!",
        "Café  &amp;amp; bar",
        "猫",
        "🐱 cat",
        "x" * 90,
        "a b " * 60,
        "ﬁne",
    ]
    np.testing.assert_array_equal(tokenize(texts, 77), open_clip.tokenize(texts).numpy())
    np.testing.assert_array_equal(tokenize(texts, 32), open_clip.tokenize(texts, context_length=32).numpy())


def test_text_embeddings_of_any_length(exported: Path) -> None:
    phrases = ["cat", "a very long phrase about a small black cat that sits on a red mat", "word " * 100]
    torch_encoder, onnx_encoder = (Detector(exported, engine=name, device="cpu") for name in ("torch", "onnx"))
    one, other = (each._engine.encoder.embed(phrases) for each in (torch_encoder, onnx_encoder))
    np.testing.assert_allclose(other, one, atol=1e-4)


def test_batches(exported: Path) -> None:
    images = np.stack([draw_shapes(seed)[0].transpose(2, 0, 1) for seed in range(3)])
    graph = Graph(exported.with_suffix(".onnx"), "trunk")
    together = graph.run(images=images)
    for name, maps in together.items():
        alone = np.concatenate([graph.run(images=image[None])[name] for image in images])
        np.testing.assert_allclose(maps, alone, atol=1e-4)
    boxes = np.array([[0, 0, 40, 30], [10, 10, 60, 50]], np.float32)
    regions = Graph(exported.with_suffix(".onnx"), "regions")
    read = {name: together[name] for name in graph.facts.grids}
    mixed = regions.run(boxes=boxes, image=np.array([2, 0]), **read)["embeddings"]
    for row, (box, image) in enumerate(zip(boxes, (2, 0), strict=True)):
        own = {name: maps[image : image + 1] for name, maps in read.items()}
        alone = regions.run(boxes=box[None], image=np.zeros(1, np.int64), **own)["embeddings"][0]
        np.testing.assert_allclose(mixed[row], alone, atol=1e-4 * max(1, np.abs(alone).max()))


def test_images_of_any_size(exported: Path) -> None:
    detector = Detector(exported, engine="onnx").set_classes(["cat"])
    for size in ((33, 40), (35, 300), (200, 34)):
        image = np.array(Image.new("RGB", size))
        assert len(detector.detect(image, short_side=0, conf=0.0)) >= 0


def test_image_too_small_for_the_graph_is_one_error(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "toy.safetensors", "convnext")
    export_graphs(path, path.with_suffix(".onnx"))
    detector = Detector(path, engine="onnx").set_classes(["cat"])
    with pytest.raises(UsageError, match=r"toy\.onnx"):
        detector.detect(np.zeros((1, 1, 3), np.uint8), short_side=0)
