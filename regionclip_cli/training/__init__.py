"""Settings to runs, checkpoints in and out."""
