"""The verbs as plain functions: the public Python API."""
