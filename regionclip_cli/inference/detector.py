"""The public Python API: a detector that is told in words what to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from regionclip_cli.data.arrays import ImageLike, as_pixels, is_tensor
from regionclip_cli.data.boxes import GivenBoxes
from regionclip_cli.errors import MissingError, UsageError
from regionclip_cli.hub.model_card import ModelCard
from regionclip_cli.hub.store import resolve
from regionclip_cli.inference.engines.choice import Engine, load_engine
from regionclip_cli.inference.preprocess import InferenceConfig, PreparedImage, decide, prepare_image
from regionclip_cli.inference.views import detect_views
from regionclip_cli.language.class_names import Vocabulary, parse_classes
from regionclip_cli.results.detections import ImageDetections

if TYPE_CHECKING:
    from torch import Tensor

    from regionclip_cli.language.concept_bank import ConceptBank

Names = str | Sequence[str] | Mapping[str, str | Sequence[str]]


class Detector:
    """Finds objects by name.

    >>> detector = Detector("regionclip-tiny").set_classes(["cat", "kettle"])  # doctest: +SKIP
    >>> detector.detect("kitchen.jpg").to_json()                               # doctest: +SKIP
    {'image': 'kitchen.jpg', 'width': 640, 'height': 480, 'detections': [{'label': 'cat', ...}]}

    Args:
        model: Name or file of a model, as `regionclip models ls` lists them.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: Floating type of the networks: `auto` (fp32), `fp32` or `bf16`.
        proposals: Name or file of another model whose proposal network finds the boxes.
        engine: `torch`, `onnx`, or `auto`: ONNX Runtime where the model has graphs and runs on a CPU in fp32.

    Raises:
        MissingError: The model is not on this machine.
        UsageError: The file is no model, or the device is not here.
    """

    def __init__(
        self,
        model: str | Path = "regionclip-tiny",
        device: str = "auto",
        dtype: str = "auto",
        proposals: str | Path | None = None,
        engine: str = "auto",
    ) -> None:
        self.path = resolve(str(model))
        other = None if proposals is None else resolve(str(proposals))
        self._engine: Engine = load_engine(self.path, engine, device, dtype, other)
        self.device = self._engine.device
        self.card: ModelCard = self._engine.card
        self.labels: tuple[str, ...] = ()

    def set_classes(
        self,
        classes: Names | Vocabulary,
        distractors: str | Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> Detector:
        """Choose what to find. The words are embedded once; nothing else changes. Returns the detector itself.

        Args:
            classes: A list of names; {name: phrase or phrases}; or a text as `--classes` takes it, with `@coco`,
                `@lvis`, files and `name=phrase|phrase`.
            distractors: Names that compete with the classes and are not reported.
            progress: Called with the number of phrases that have just been embedded.

        Raises:
            UsageError: The names are not valid.
            MissingError: The model has no text encoder.
        """
        if isinstance(classes, Mapping):
            several = {label: [given] if isinstance(given, str) else given for label, given in classes.items()}
            classes = [f"{label}={'|'.join(phrases)}" for label, phrases in several.items()]
        vocabulary = classes if isinstance(classes, Vocabulary) else parse_classes(classes, distractors)
        self._engine.set_vocabulary(vocabulary, progress)
        self.labels = vocabulary.labels
        return self

    def set_bank(self, bank: str | Path | ConceptBank, distractors: Sequence[str] = ()) -> Detector:
        """Choose what to find by a concept bank that was made with this model. Returns the detector itself.

        Raises:
            UsageError: The file is no bank, or one of another model or dimension.
            MissingError: There is no such file.
        """
        from regionclip_cli.language.concept_bank import ConceptBank

        bank = bank if isinstance(bank, ConceptBank) else ConceptBank.load(Path(bank))
        self._engine.set_bank(bank, distractors)
        self.labels = bank.names
        return self

    @overload
    def detect(self, image: list[ImageLike] | tuple[ImageLike, ...], **options: Any) -> list[ImageDetections]: ...
    @overload
    def detect(self, image: ImageLike, **options: Any) -> ImageDetections: ...
    def detect(self, image: Any, **options: Any) -> ImageDetections | list[ImageDetections]:
        """Find the classes in one image, or in each of a list.

        Args:
            image: A path; a Pillow image; an array RGB uint8 (H, W, 3); a tensor RGB (3, H, W), uint8 or 0..1. Or a
                list of them, which gives a list back.
            options: As the flags of `regionclip detect`: `conf`, `iou`, `nms`, `max_dets`, `short_side`, `scoring`,
                `tiles`, `overlap`, `flip`; and `boxes`, (R, 4) xyxy in pixels, to classify instead of proposals (for a
                list of images, a list).

        Raises:
            UsageError: No classes were set, or an option is unknown.
            InputError: An image cannot be read.
            MissingError: The model finds no boxes by itself and none are given.
        """
        several = isinstance(image, list | tuple)
        images = list(image) if several else [image]
        boxes = options.pop("boxes", None)
        given: list[Any] = [None] * len(images) if boxes is None else list(boxes) if several else [boxes]
        if len(given) != len(images):
            raise UsageError(f"{len(images)} images need boxes for each of them, not {len(given)}.")
        inference = self.decide(**options)
        found = []
        for number, (each, its_boxes) in enumerate(zip(images, given, strict=True), 1):
            name, pixels = as_pixels(each, f"image-{number}")
            ready = prepare_image(
                name, pixels, inference, None if its_boxes is None else _given(name, its_boxes, pixels)
            )
            found += self.look([ready], inference)
        return found if several else found[0]

    def embed_regions(self, image: ImageLike, boxes: Any) -> Tensor:
        """Return the embeddings (R, D) float32, not normalised, of regions of an image, on the CPU.

        Args:
            image: As `detect` takes one.
            boxes: (R, 4) xyxy in pixels of the image.
        """
        name, pixels = as_pixels(image, "image-1")
        ready = prepare_image(name, pixels, self.decide(), _given(name, boxes, pixels))
        import torch

        return torch.from_numpy(self._engine.embed(ready))

    def decide(self, **options: Any) -> InferenceConfig:
        """Return the full settings of a look from those of `detect` that were given."""
        return decide(self.card, **options)

    def look(self, images: Sequence[PreparedImage], inference: InferenceConfig) -> list[ImageDetections]:
        """Detect in a batch of images, all with given boxes or all without."""
        if not self.labels:
            raise UsageError("The detector has no classes.", "Call set_classes first.")
        if any(image.views is not None for image in images):
            return [self._look_at_views(image, inference) for image in images]
        given = images[0].boxes is not None
        if not given and not self._engine.finds_boxes:
            raise MissingError(
                f"The model {self.card.name!r} has no proposal network to find boxes with.",
                "Give boxes (--boxes FILE), or a model that has one (--proposals NAME).",
            )
        return self._engine.detect(images, inference, self.labels)

    def _look_at_views(self, image: PreparedImage, inference: InferenceConfig) -> ImageDetections:
        plain = dataclasses.replace(inference, tiles=0, flip=False)
        (whole,) = self.look([dataclasses.replace(image, views=None)], plain)
        if image.views is None:
            return whole

        def detect(parts: Sequence[np.ndarray]) -> list[ImageDetections]:
            return self.look([prepare_image(image.name, part, plain) for part in parts], plain)

        return detect_views(whole, image.views, inference.scoring, detect)

    @property
    def engine(self) -> str:
        """Name of the engine in use, torch or onnx."""
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model file, as `hub.model_card.fingerprint` returns it."""
        return self._engine.fingerprint


def _given(name: str, boxes: Any, pixels: np.ndarray) -> GivenBoxes:
    """Check boxes (R, 4) that came through Python.

    Raises:
        UsageError: They have another shape, or one is empty.
        InputError: One lies outside the image.
    """
    array = np.asarray(boxes.cpu() if is_tensor(boxes) else boxes, dtype=np.float32)
    array = array.reshape(-1, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise UsageError(f"{name}: boxes must be finite numbers of the shape (R, 4), not {array.shape}.")
    if (array[:, 2:] <= array[:, :2]).any():
        raise UsageError(f"{name}: a box is empty; x2 must be above x1 and y2 above y1.")
    return GivenBoxes(array).within(name, pixels.shape[1], pixels.shape[0])[0]
