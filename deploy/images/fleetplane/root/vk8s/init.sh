#!/bin/sh
# init.sh [ADDRESS OF THE MASTER]: makes the node ready to be set up, or to go on after a restart. May run again.
set -eu
. /vk8s/common
master=${1:-}
mount --make-rshared / || true
modprobe -a overlay br_netfilter bridge 2>/dev/null || true
for setting in net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; do
    sysctl -q -w "$setting" 2>/dev/null || true
done
if [ -e "$SERVER_ENV" ]; then
    systemctl start fleetplane-server
fi
if [ -e "$NODE_KUBECONFIG" ]; then
    # A pod that was made anew may have another address, and so may its master.
    if [ -n "$master" ]; then
        sed -i "s#https://[^\"]*:6443#https://$master:6443#" "$NODE_KUBECONFIG"
    fi
    systemctl start kubelet
fi
