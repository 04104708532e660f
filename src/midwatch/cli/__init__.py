"""The command line. One file per command; its docstring is its manual page."""
