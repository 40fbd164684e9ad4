"""Inference: the `Detector` API, preprocessing, prefetching and the choice of device."""
