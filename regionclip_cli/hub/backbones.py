"""The image encoders that come with the package, described without importing any of them.

The official CLIP networks are named as open_clip names them; their `-quickgelu` configs are the ones OpenAI's weights
were trained with, and RegionCLIP's weights are fine-tuned from those.
"""

from __future__ import annotations

from regionclip_cli.specs import BackboneSpec

_RESNET = {"type": "regionclip_cli.vision.backbones.resnet.ClipResNet"}
_TIMM = {"type": "regionclip_cli.vision.backbones.timm_tower.TimmTower"}
_PYRAMID = {"type": "regionclip_cli.vision.backbones.timm_pyramid.TimmPyramid"}
_VIT = {"type": "regionclip_cli.vision.backbones.vit.DenseViT"}

TINY_CLIP = {
    "embed_dim": 512,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 160, "heads": 4, "layers": 4},
}


def _resnet(name: str, config: str, channels: int, pool_size: int, embed_dim: int, note: str) -> BackboneSpec:
    """Describe one of CLIP's modified ResNets: features after `layer3`, stride 16."""
    return BackboneSpec(
        name=name,
        summary=f"CLIP ResNet {config.removesuffix('-quickgelu')}: {note}",
        open_clip=config,
        network=_RESNET,
        channels=channels,
        stride=16,
        pool_size=pool_size,
        embed_dim=embed_dim,
    )


def _vit(name: str, config: str, channels: int, stride: int, embed_dim: int) -> BackboneSpec:
    """Describe one of CLIP's vision transformers, used as a dense encoder of patches."""
    return BackboneSpec(
        name=name,
        summary=f"CLIP {config.removesuffix('-quickgelu')}: one token a patch, regions are means of tokens.",
        open_clip=config,
        network=_VIT,
        channels=channels,
        stride=stride,
        pool_size=7,
        embed_dim=embed_dim,
    )


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _resnet("clip-rn50", "RN50-quickgelu", 1024, 14, 1024, "the student and teacher of RegionCLIP's main model."),
        _resnet("clip-rn101", "RN101-quickgelu", 1024, 14, 512, "a deeper network of the same width."),
        _resnet("clip-rn50x4", "RN50x4-quickgelu", 1280, 18, 640, "RegionCLIP's larger model."),
        _resnet("clip-rn50x16", "RN50x16-quickgelu", 1536, 24, 768, "about sixteen times the compute of RN50."),
        _resnet("clip-rn50x64", "RN50x64-quickgelu", 2048, 28, 1024, "CLIP's largest ResNet."),
        _vit("clip-vit-b-32", "ViT-B-32-quickgelu", 768, 32, 512),
        _vit("clip-vit-b-16", "ViT-B-16-quickgelu", 768, 16, 512),
        _vit("clip-vit-l-14", "ViT-L-14-quickgelu", 1024, 14, 768),
        BackboneSpec(
            name="clip-convnext-base",
            summary="open_clip's ConvNeXt-Base: regions pass its last stage.",
            open_clip="convnext_base",
            network=_TIMM,
            channels=512,
            stride=16,
            pool_size=14,
            embed_dim=512,
        ),
        BackboneSpec(
            name="regionclip-tiny",
            summary="EfficientNet-Lite0, cut before its last stages, and a small text transformer.",
            open_clip=TINY_CLIP,
            network=_TIMM,
            channels=112,
            stride=16,
            pool_size=14,
            embed_dim=512,
            mean=(0.498, 0.498, 0.498),
            std=(0.502, 0.502, 0.502),
        ),
        BackboneSpec(
            name="tiny-pyramid",
            summary="EfficientNet-Lite0 read at three strides and a small text transformer: the model in the package.",
            open_clip=TINY_CLIP,
            network=_PYRAMID,
            channels=592,
            stride=16,
            pool_size=7,
            embed_dim=512,
            mean=(0.498, 0.498, 0.498),
            std=(0.502, 0.502, 0.502),
        ),
    )
}
