"""Job: runs pods to completion, so many times, and counts each exactly once."""
