"""One module per command family: options in, calls on the client, lines out."""
