"""How good detections are: the protocols of COCO and LVIS, base and novel classes side by side.

scores = score_detections(truth, found, split=split)
scores.summary()["novel"]["AP50"]
"""

from regionclip_cli.scoring.scores import ClassScore, Scores
from regionclip_cli.scoring.scoring import Found, score_detections

__all__ = ["ClassScore", "Found", "Scores", "score_detections"]
