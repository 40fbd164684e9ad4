"""Region labels: what a teacher saw in the regions of every image, in shards on the disk.

A folder holds `labels.json` (what the labels are of, see `LabelManifest`) and shards `labels-00000.jsonl`, a row an
image in the order of the captions, with `labels-00000.index.npy` beside each, which tells where its rows begin.
"""

from regionclip_cli.data.region_labels.format import LabelManifest, RegionLabel
from regionclip_cli.data.region_labels.store import RegionLabels

__all__ = ["LabelManifest", "RegionLabel", "RegionLabels"]
