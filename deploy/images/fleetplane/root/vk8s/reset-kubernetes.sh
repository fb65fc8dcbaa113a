#!/bin/sh
# Takes everything off this node that an installation put there.
set -eu
. /vk8s/common
systemctl stop kubelet
systemctl stop fleetplane-server
podman rm --all --force >/dev/null 2>&1 || true
for directory in /etc/kubernetes /var/lib/kubelet /var/lib/fleetplane; do
    find "$directory/" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
done
