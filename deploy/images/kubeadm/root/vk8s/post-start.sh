#!/bin/sh
# State goes to the node's volume, so that a new pod finds it.
set -eu
backup=/vk8s-backup
for path in etc/kubernetes var/lib/kubelet var/lib/etcd var/lib/containerd root/.kube etc/cni/net.d; do
    mkdir -p "$backup/$path" "/${path%/*}"
    if [ ! -L "/$path" ]; then
        rm -rf "/$path"
        ln -s "$backup/$path" "/$path"
    fi
done
if [ -n "${NVIDIA_ALLOCATED_DEVICES:-}" ]; then
    printf 'NVIDIA_VISIBLE_DEVICES=%s\n' "$NVIDIA_ALLOCATED_DEVICES" > /gpu.env
fi
