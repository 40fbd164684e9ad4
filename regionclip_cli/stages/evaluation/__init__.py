"""Measuring a detector: what it is asked, how it looks, what is kept of an image, and what comes out."""
