"""What is written of a measurement: its numbers as JSON, and a page to look at."""
