"""Detections and the formats they are written in."""
