"""Backbones: an open_clip image tower, cut into a trunk that sees the image and a pool that sees regions."""

from regionclip_cli.vision.backbones.base import Backbone
from regionclip_cli.vision.backbones.build import build_backbone, build_clip
from regionclip_cli.vision.backbones.resnet import ClipResNet
from regionclip_cli.vision.backbones.timm_tower import TimmTower
from regionclip_cli.vision.backbones.vit import DenseViT

__all__ = ["Backbone", "ClipResNet", "DenseViT", "TimmTower", "build_backbone", "build_clip"]
