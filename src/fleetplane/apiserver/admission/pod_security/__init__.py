"""PodSecurity: the Pod Security Standards (privileged, baseline, restricted), chosen by labels of the namespace."""
