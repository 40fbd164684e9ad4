"""Subcommands, one a file: signature, help, examples, one call."""
