"""Who is it? The first stage of a request after TLS."""
