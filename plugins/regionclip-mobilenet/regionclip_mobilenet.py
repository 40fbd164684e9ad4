"""MobileNet-V2 at half width as a backbone of regionclip: a description, and no code of its own."""

from regionclip_cli.specs import BackboneSpec

MOBILENET = BackboneSpec(
    name="mobilenet-v2-050",
    summary="MobileNet-V2 at half width with a small text transformer; no weights come with it.",
    open_clip={
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "mobilenetv2_050",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
    },
    network={"type": "regionclip_cli.vision.backbones.timm_tower.TimmTower"},
    channels=48,
    stride=16,
    pool_size=14,
    embed_dim=256,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
