"""Thin faces on the client: command line, terminal, web, gRPC."""
