"""One module per subcommand of the command line; each has `run(arguments)` and is imported only when called."""
