"""Training detectors on boxes: what is learned from what, watching it, and the model that comes out."""
