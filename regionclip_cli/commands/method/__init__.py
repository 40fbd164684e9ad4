"""The stages of the method, a subcommand each: every one runs its own section of a recipe."""
