"""`detect` as a function: streaming, failures, resume, interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Listener
from photos import NAMES, write_photos
from PIL import Image

from regionclip_cli import Detector
from regionclip_cli.errors import InputError, MissingError, OutputError, UsageError
from regionclip_cli.inference import preprocess
from regionclip_cli.recipe.detection import DetectSettings
from regionclip_cli.stages import detect
from regionclip_cli.stages.detect import DetectResult, run

EVERY_FORMAT = ("jsonl", "images", "coco", "yolo", "csv")


@pytest.fixture
def go(toy_model: Path, photos: Path) -> Any:
    def call(*inputs: str, progress: Any = None, emit: Any = None, **options: Any) -> DetectResult:
        base = {"classes": "cat,dog", "model": str(toy_model), "out": "out", "formats": (), "recursive": True}
        return run(DetectSettings(inputs=inputs or ("photos",), **base | options), progress, emit)

    return call


def lines(out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "detections.jsonl").read_text().splitlines()]


def files(out: str) -> dict[str, bytes]:
    found = {str(path.relative_to(out)): path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name != "run.log"}


def test_same_detections_as_from_python(go: Any, toy_model: Path) -> None:
    result = go()
    detector = Detector(toy_model, device="cpu").set_classes("cat,dog")
    assert [line["image"] for line in lines()] == ["photos/1.jpg", "photos/2.png", "photos/sub/1.jpg"]
    assert lines() == [detector.detect(f"photos/{name}").to_json() for name in NAMES]
    assert sum(len(line["detections"]) for line in lines()) == result.tally.detections > 3
    assert (result.images, result.skipped, result.failed) == (3, 0, ())


def test_batch_size_does_not_change_detections(go: Any) -> None:
    pictures = {f"same/{index}.png": index for index in range(5)}
    for name, seed in pictures.items():
        Path(name).parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(name)
    go("same", out="one", conf=0.05)
    go("same", out="two", conf=0.05, batch=2)
    assert [line["image"] for line in lines("one")] == [line["image"] for line in lines("two")]
    for one, two in zip(lines("one"), lines("two"), strict=True):
        assert len(one["detections"]) == len(two["detections"]) > 0
        for a, b in zip(one["detections"], two["detections"], strict=True):
            assert a["label"] == b["label"]
            assert np.allclose(a["box"], b["box"], atol=0.1)
            assert abs(a["score"] - b["score"]) < 1e-3


def test_unreadable_image_is_skipped(go: Any) -> None:
    Path("photos/1b.jpg").write_bytes(Path("photos/1.jpg").read_bytes()[:300])
    Path("photos/sub/0.jpg").touch()
    listener = Listener()
    result = go(progress=listener)
    assert result.failed == ("photos/1b.jpg", "photos/sub/0.jpg")
    assert [line["image"] for line in lines()] == [f"photos/{name}" for name in NAMES]
    errors = [json.loads(line) for line in Path("out/errors.jsonl").read_text().splitlines()]
    assert [set(error) for error in errors] == [{"image", "error"}] * 2
    assert [error["image"] for error in errors] == list(result.failed)
    assert [error["error"] for error in errors] == listener.warnings
    assert listener.done == listener.total == 5


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_strict_stops_at_the_first_failure(go: Any, batch: int) -> None:
    Path("photos/1b.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"photos/1b\.jpg"):
        go(strict=True, batch=batch)
    assert [line["image"] for line in lines()] == ["photos/1.jpg"]
    assert json.loads(Path("out/errors.jsonl").read_text())["image"] == "photos/1b.jpg"


def test_image_is_written_before_the_next_is_read(go: Any) -> None:
    seen = []
    go(emit=lambda found: seen.append((found.image, len(lines()))))
    assert seen == [(f"photos/{name}", index) for index, name in enumerate(NAMES, 1)]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_interrupted_run_resumes(go: Any, stop: type[BaseException], after: int) -> None:
    go(out="whole", formats=EVERY_FORMAT)

    def cut(found: Any) -> None:
        if len(lines()) == after:
            raise stop

    with pytest.raises(stop):
        go(formats=EVERY_FORMAT, emit=cut)
    assert not Path("out/coco.json").exists()
    before = Path("out/detections.jsonl").read_bytes()
    listener = Listener()
    result = go(formats=EVERY_FORMAT, resume=True, progress=listener)
    assert (result.skipped, result.images) == (after, 3 - after)
    assert listener.done == 3
    assert Path("out/detections.jsonl").read_bytes().startswith(before)
    assert files("out") == files("whole")


def test_resume_takes_new_and_repaired_images(go: Any) -> None:
    good = Path("photos/2.png").read_bytes()
    Path("photos/2.png").write_bytes(good[:50])
    assert go().failed == ("photos/2.png",)
    Path("photos/2.png").write_bytes(good)
    write_photos(Path("photos"), ("9.jpg",))
    result = go(resume=True)
    assert (result.images, result.skipped, result.failed) == (2, 2, ())
    assert sorted(line["image"] for line in lines()) == sorted(f"photos/{name}" for name in (*NAMES, "9.jpg"))
    assert not Path("out/errors.jsonl").exists()
    again = go(resume=True)
    assert (again.images, again.skipped) == (0, 4)


def test_second_run_changes_nothing(go: Any) -> None:
    go(formats=EVERY_FORMAT)
    before = files("out")
    with pytest.raises(UsageError, match="--resume"):
        go(formats=EVERY_FORMAT, classes="bird")
    with pytest.raises(UsageError, match="labels"):
        go(formats=EVERY_FORMAT, classes="bird", resume=True)
    with pytest.raises(UsageError, match="conf"):
        go(formats=EVERY_FORMAT, conf=0.5, resume=True)
    assert files("out") == before


def test_output_folder_is_not_an_input(go: Any) -> None:
    for resume in (False, True):
        go(".", out="photos/out", formats=("jsonl", "images"), resume=resume)
        assert len(lines("photos/out")) == 3


def test_given_boxes(go: Any) -> None:
    boxes = {"photos/1.jpg": [[4, 4, 40, 40], [-9, 10, 30, 44]], "2.png": {"boxes": [[1, 1, 20, 20]], "scores": [0.25]}}
    Path("boxes.json").write_text(json.dumps({**boxes, "gone.jpg": []}))
    listener = Listener()
    go(boxes="boxes.json", conf=0, nms="off", progress=listener)
    found = {line["image"]: line["detections"] for line in lines()}
    assert [len(found[f"photos/{name}"]) for name in NAMES] == [4, 2, 0]
    assert {tuple(one["box"]) for one in found["photos/1.jpg"]} == {(4, 4, 40, 40), (0, 10, 30, 44)}
    Path("boxes.json").write_text(json.dumps({"2.png": [[1, 1, 20, 20]]}))
    go("photos/2.png", boxes="boxes.json", conf=0, nms="off", out="plain")
    fused, plain = (
        sorted(one["score"] for one in each) for each in (found["photos/2.png"], lines("plain")[0]["detections"])
    )
    assert np.allclose(fused, np.sqrt(np.array(plain) * 0.25), atol=1e-3)
    assert [
        word for word in ("1 box clipped", "'gone.jpg'") if not any(word in each for each in listener.warnings)
    ] == []


def test_box_outside_the_image_fails_that_image(go: Any) -> None:
    Path("boxes.json").write_text(json.dumps({"1.jpg": [[400, 4, 500, 40]], "2.png": [[1, 1, 9, 9]]}))
    result = go("photos", recursive=False, boxes="boxes.json", conf=0)
    assert result.failed == ("photos/1.jpg",)
    assert len(lines()) == 1


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"inputs": ("none.jpg",)}, UsageError, "none.jpg"),
        ({"classes": None}, UsageError, "--classes"),
        ({"classes": ","}, UsageError, "class"),
        ({"model": "regionclip-tinny"}, MissingError, "'regionclip-tiny'"),
        ({"proposals": "nothing"}, MissingError, "'nothing'"),
        ({"boxes": "none.json"}, MissingError, "none.json"),
        ({"classes": None, "concepts": "none.safetensors"}, MissingError, "none.safetensors"),
        ({"formats": ("pdf",)}, UsageError, "'pdf'"),
        ({"device": "gpu"}, UsageError, "gpu"),
        ({"out": "photos/1.jpg/out"}, OutputError, "photos/1.jpg"),
    ],
)
def test_wrong_requests_fail_before_anything_is_written(
    go: Any, options: dict[str, Any], error: type[Exception], named: str
) -> None:
    inputs = options.pop("inputs", ())
    with pytest.raises(error, match=named) as caught:
        go(*inputs, **options)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_full_disk_stops_and_can_be_resumed(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from regionclip_cli.files import Journal

    append = Journal.append

    def full(self: Journal, record: Any) -> None:
        if len(self) == 2:
            raise OutputError("out/detections.jsonl cannot be written: No space left on device.")
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(OutputError, match="No space left"):
            go(formats=EVERY_FORMAT)
    assert len(lines()) == 2
    assert not [path for path in Path("out").rglob("*.part") if path.name.startswith(".")]
    assert go(formats=EVERY_FORMAT, resume=True).images == 1


def test_input_tree_is_walked_once(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    find_inputs = detect.find_inputs

    def counted(*args: Any, **options: Any) -> Any:
        walks.append(args)
        return find_inputs(*args, **options)

    monkeypatch.setattr(detect, "find_inputs", counted)
    listener = Listener()
    assert go(progress=listener).images == listener.total == 3
    assert len(walks) == 1


def test_names_that_are_not_utf8_are_kept(go: Any) -> None:
    import os

    name = os.fsdecode(b"photos/\xff.jpg")
    os.link("photos/1.jpg", name)
    assert go("photos", recursive=False).images == 3
    assert name in [line["image"] for line in lines()]


def test_json_writes_no_files(go: Any) -> None:
    found = []
    result = go(out=None, json_lines=True, emit=found.append)
    assert len(found) == 3
    assert result.out is None
    assert {path.name for path in Path().iterdir()} == {"photos"}


def test_default_output_folder(go: Any) -> None:
    assert go(out=None).out == detect.DEFAULT_OUT
    assert len(lines("regionclip-detections")) == 3


def test_only_a_few_images_are_in_memory(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images there are, only a few are in memory at once."""
    import weakref

    alive: list[weakref.ref] = []
    most = 0
    prepare_image = preprocess.prepare_image

    def watched(*args: Any, **options: Any) -> Any:
        ready = prepare_image(*args, **options)
        alive.append(weakref.ref(ready))
        return ready

    def count(found: Any) -> None:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))

    monkeypatch.setattr(preprocess, "prepare_image", watched)
    write_photos(Path("many"), tuple(f"{index:02}.png" for index in range(24)))
    go("many", emit=count)
    assert len(alive) == 24
    assert most <= 6
