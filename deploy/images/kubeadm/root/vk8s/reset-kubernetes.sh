#!/bin/sh
# Takes everything off this node that an installation put there.
set -eu
kubeadm reset --force
ip link delete cni0 2>/dev/null || true
ip link delete flannel.1 2>/dev/null || true
for directory in /etc/kubernetes /var/lib/kubelet /var/lib/etcd /etc/cni/net.d; do
    find "$directory/" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
done
