"""Settings, checked and frozen; no torch."""
