"""The sections of a recipe, one a file: frozen, unknown keys forbidden, one sentence a field."""
