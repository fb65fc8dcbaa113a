"""Aggregation: API groups that another server serves, behind ours.

An APIService names a group, a version and a Service. Requests for it are authenticated and authorized here and passed on
with the user's identity in headers, under our front-proxy certificate (``proxying``); a watchful eye (``watching``) says
whether the other server answers, and what it serves becomes part of our discovery and OpenAPI (``documents``).
"""
