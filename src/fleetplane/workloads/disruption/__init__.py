"""PodDisruptionBudget: how many pods may go voluntarily now."""
