"""What is filled in and what is refused on the way to the store: the admission plug-ins of the server, and their chain."""
