#!/bin/sh
# init-kubernetes.sh POD_CIDR SERVICE_CIDR [FILE]: makes this node a control plane, and a node of it. Runs once in a volume's
# life. FILE is what snapshot.sh wrote (vk8s-begins-with-snapshot): its objects, without the nodes of the cluster it was.
set -eu
umask 077
. /vk8s/common
pod_cidr=$1
service_cidr=$2
mkdir -p /etc/kubernetes/pki
: > /etc/kubernetes/pki/ca.crt
if [ -n "${3:-}" ]; then
    mkdir -p "$SERVER_DIR"
    tar -xzf "$3" -C "$SERVER_DIR"
fi
printf 'POD_CIDR=%s\nSERVICE_CIDR=%s\n' "$pod_cidr" "$service_cidr" > "$SERVER_ENV"
systemctl start fleetplane-server
wait_for 60 test -e "$SERVER_DIR/admin.kubeconfig" || {
    tail -n 3 /var/log/fleetplane-server.log >&2
    exit 1
}
ln -sf "$SERVER_DIR/admin.kubeconfig" "$ADMIN_CONF"
cp "$SERVER_DIR/pki/ca.crt" /etc/kubernetes/pki/ca.crt
if [ -n "${3:-}" ]; then
    wait_for 60 kubectl --kubeconfig="$ADMIN_CONF" get --raw=/readyz
    kubeadm forget-nodes
fi
kubeadm join-here
