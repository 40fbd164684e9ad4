"""Images and boxes in."""
