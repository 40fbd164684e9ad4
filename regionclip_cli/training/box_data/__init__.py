"""Images with boxes as a detector learns from them: resized, mirrored, and rare classes shown oftener."""

from regionclip_cli.training.box_data.images import TrainingImages, with_objects
from regionclip_cli.training.box_data.repeat_factor import repeat_factors
from regionclip_cli.training.box_data.views import Views

__all__ = ["TrainingImages", "Views", "repeat_factors", "with_objects"]
