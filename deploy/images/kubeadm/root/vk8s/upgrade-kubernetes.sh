#!/bin/sh
# upgrade-kubernetes.sh master|worker: from the version on the volume to the image's own. May run again.
set -eu
case "$1" in
    master) kubeadm upgrade apply --yes "v$(cat /vk8s/version)" ;;
    worker) kubeadm upgrade node ;;
    *) echo "master or worker?" >&2; exit 2 ;;
esac
systemctl restart kubelet
