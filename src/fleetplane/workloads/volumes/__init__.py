"""Persistent volumes: which claim gets which volume, made where none fits, kept while in use."""
