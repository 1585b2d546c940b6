"""One module per ``nodulemc`` subcommand: its arguments, and the call into the package that does the work."""
