"""Places where operators are installed as people install them: a Fleetplane server, and a real control plane."""
