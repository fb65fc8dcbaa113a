"""Endpoints: where the pods behind a Service can be reached, as EndpointSlices and as the older Endpoints."""
