"""Deployment: moves from one pod template to the next, a ReplicaSet for each."""
