"""Training: mmengine runners with exact data order, exact resume and atomic checkpoints."""

import regionclip_cli.vision  # noqa: F401 - gives mmcv its operators, which mmdet's masks ask for
