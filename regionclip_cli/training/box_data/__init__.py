"""Images with boxes as a detector learns from them: resized, mirrored, and rare classes shown oftener."""

import regionclip_cli.vision  # noqa: F401 - gives mmcv its operators, which mmdet's masks ask for
from regionclip_cli.training.box_data.images import TrainingImages, with_objects
from regionclip_cli.training.box_data.repeat_factor import repeat_factors
from regionclip_cli.training.box_data.views import Views

__all__ = ["TrainingImages", "Views", "repeat_factors", "with_objects"]
