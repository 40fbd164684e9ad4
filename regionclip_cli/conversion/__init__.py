"""Weights of other projects in and out: what a file is, and what its tensors are called in a model file."""
