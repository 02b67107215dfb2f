"""The modules of the subcommands, imported only when called (see `cli.COMMANDS`), and what they share."""
