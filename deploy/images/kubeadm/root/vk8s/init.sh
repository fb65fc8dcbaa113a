#!/bin/sh
# init.sh [ADDRESS OF THE MASTER]: makes the node ready. May run again; runs in every new pod.
set -eu
mount --make-rshared /
modprobe -a overlay br_netfilter
sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
systemctl daemon-reload
systemctl restart containerd
if [ -e /var/lib/kubelet/config.yaml ]; then
    systemctl enable --now kubelet
else
    systemctl enable kubelet
fi
