"""Region embeddings: boxes of an image in the space of texts."""

from regionclip_cli.vision.region_encoder.encoder import RegionEncoder

__all__ = ["RegionEncoder"]
