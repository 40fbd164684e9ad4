"""What a plugin hands over: frozen descriptions that name code by dotted path and import none of it.

A plugin's entry point resolves to one of these objects. Reading it must stay cheap, so that listing every installed
backbone or writer costs milliseconds; the code behind `network`, `loader` or `render` is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BackboneSpec:
    """An image encoder that yields a feature map and region embeddings from one open_clip model.

    Attributes:
        name: What recipes and model files call it, for example `clip-rn50`.
        summary: One sentence for listings.
        open_clip: Name of an open_clip model config, or the config itself (`embed_dim`, `vision_cfg`, `text_cfg`).
        network: Registry config of the module; `type` is a dotted path to a `vision.backbones.base.Backbone` subclass,
            the other keys are its keyword arguments.
        channels: Channels of the feature map.
        stride: Input pixels per feature-map cell.
        pool_size: Side P of the RoIAlign grid that `pool` takes.
        embed_dim: Dimension D of the region and text embeddings.
        mean: Per-channel RGB mean of the training pixels, in 0..1.
        std: Per-channel RGB standard deviation, in 0..1.
    """

    name: str
    summary: str
    open_clip: str | Mapping[str, Any]
    network: Mapping[str, Any]
    channels: int
    stride: int
    pool_size: int
    embed_dim: int
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class DatasetSpec:
    """A set of images with boxes, captions or both.

    A record is a mapping, one an image:

    * `image`: the encoded file as bytes, its path, or a Pillow image; always needed where pictures are looked at.
    * `captions`: a list of sentences, or `caption`: one. Needed for concepts, pseudo labels and pretraining.
    * `boxes`: a list of [x1, y1, x2, y2] in pixels of the image, and `labels`: an index into `classes` for each.
      Needed to fine-tune and to evaluate.
    * `key`: the image's name, unique in the set; left out, the dataset's name and a number.

    The loader may return a sequence (`len` and a record by number), which is used in place and read at random, or an
    iterator, which is read once from its beginning; pictures that are no files are put into a temporary file then.
    Either way the records must be the same, in the same order, whenever the options are.

    Attributes:
        name: What `--dataset` and recipes call it.
        summary: One sentence for listings.
        loader: Dotted path `package.module:function`; called with `options` as keywords, returns the records.
        classes: Class names in label order; empty for caption-only sets.
        options: Default keyword arguments of `loader`; a recipe may set those that stand here. Empty, any are passed.
    """

    name: str
    summary: str
    loader: str
    classes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WriterSpec:
    """One output format of `detect`.

    Attributes:
        name: What `--format` calls it.
        summary: One sentence for listings: what is written, and where below the output folder.
        render: Dotted path `package.module:function`, called as `function(records, folder, labels, **options)` when
            detection has finished; `regionclip_cli.results.writers` describes the arguments.
        outputs: Names of the files and folders that it writes below the output folder. A new run refuses a folder that
            already holds one of them.
        options: Default keyword arguments of `render`, which `--format-option NAME.KEY=VALUE` changes; a value must be
            of the default's type, or text where the default is None.
        check: Dotted path of `function(labels, **options)`, called before any work; it raises a `RegionClipError` when
            an option is wrong. Empty for no check.
        requires: Packages to import for this format; without them it is refused before any work (exit code 5).
        extra: Extra of its distribution that installs them, for the error message.
    """

    name: str
    summary: str
    render: str
    outputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    check: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""
