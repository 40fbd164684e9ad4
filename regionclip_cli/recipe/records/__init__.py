"""What a run leaves behind about itself: settings, log, and the list of runs."""
