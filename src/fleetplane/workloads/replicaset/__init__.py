"""ReplicaSet: keeps so many pods of one template alive."""
