"""From the text of a recipe to plain values, with the place of each value kept for whoever has to mend it."""
