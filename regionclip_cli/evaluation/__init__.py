"""Evaluation: what a detector is asked, its predictions, and COCO and LVIS metrics of them."""
