"""The only code that prints to a terminal or reads from one."""
