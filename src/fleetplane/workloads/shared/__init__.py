"""What several built-in controllers need: readers of pods and templates, ownership, expectations, acting on a plan."""
