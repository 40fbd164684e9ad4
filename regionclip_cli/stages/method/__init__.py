"""The stages of the method as plain functions: `run(recipe, progress, ...)`."""
