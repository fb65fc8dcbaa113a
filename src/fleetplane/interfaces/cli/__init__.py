"""The ``fleetplane`` command. Each module is a group of commands; imports are lazy so that the command starts fast."""
