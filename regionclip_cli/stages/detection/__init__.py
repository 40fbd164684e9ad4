"""The parts of `detect`: settings of a look, reading ahead, the output folder, counting."""
