"""``python -m fleetplane.interfaces.cli``, where the script is not on the path."""

from fleetplane.interfaces.cli.main import main

main()
