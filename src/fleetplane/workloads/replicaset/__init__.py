"""ReplicaSet (and the older ReplicationController): keeps so many pods of one template alive."""
