"""Region-text pretraining: a teacher names regions, a student learns from the names (RegionCLIP section 3.2)."""
