#!/bin/sh
# init-kubernetes.sh POD_CIDR SERVICE_CIDR: makes this node a control plane, and a node of it. Runs once in a volume's life.
set -eu
umask 077
. /vk8s/common
pod_cidr=$1
service_cidr=$2
mkdir -p /etc/kubernetes/pki
: > /etc/kubernetes/pki/ca.crt
printf 'POD_CIDR=%s\nSERVICE_CIDR=%s\n' "$pod_cidr" "$service_cidr" > "$SERVER_ENV"
systemctl start fleetplane-server
wait_for 60 test -e "$SERVER_DIR/admin.kubeconfig" || {
    tail -n 3 /var/log/fleetplane-server.log >&2
    exit 1
}
ln -sf "$SERVER_DIR/admin.kubeconfig" "$ADMIN_CONF"
cp "$SERVER_DIR/pki/ca.crt" /etc/kubernetes/pki/ca.crt
kubeadm join-here
