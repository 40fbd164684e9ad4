"""Networks on mmdet's registries. Importing this package makes mmcv's operators available first."""

from regionclip_cli.vision import mmcv_ops

mmcv_ops.install()
