"""HorizontalPodAutoscaler: sizes by what pods use of cpu and memory."""
