#!/bin/sh
# State goes to the node's volume, so that a new pod finds it; services that were set up before are started.
set -eu
backup=/vk8s-backup
for path in etc/kubernetes var/lib/kubelet var/lib/fleetplane var/lib/containers; do
    mkdir -p "$backup/$path" "/${path%/*}"
    if [ ! -L "/$path" ]; then
        rm -rf "/$path"
        ln -s "$backup/$path" "/$path"
    fi
done
chmod 0700 "$backup/var/lib/kubelet" "$backup/var/lib/fleetplane"
