"""What a run leaves behind: its folder, history, log and stage cache."""
