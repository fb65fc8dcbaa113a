"""Admission webhooks: other people's HTTPS servers that change or refuse what is written."""
