"""Detections against the truth: tables of COCO, LVIS, base and novel classes."""
