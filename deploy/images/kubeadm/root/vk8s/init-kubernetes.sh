#!/bin/sh
# init-kubernetes.sh POD_CIDR SERVICE_CIDR: the control plane and its network. Runs once in a volume's life.
set -eu
address=$(ip route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')
kubeadm init --kubernetes-version="v$(cat /vk8s/version)" --pod-network-cidr="$1" --service-cidr="$2" \
    --apiserver-advertise-address="$address" --skip-phases=preflight --skip-token-print
sed "s#10.244.0.0/16#$1#" /vk8s/kube-flannel.yml | kubectl --kubeconfig=/etc/kubernetes/admin.conf apply -f -
