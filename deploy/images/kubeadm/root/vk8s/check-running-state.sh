#!/bin/sh
# Prints True when every part of Kubeflow is there and available; what is missing is not ready.
export KUBECONFIG=/etc/kubernetes/admin.conf
ready() {
    found=$(kubectl --namespace "$1" get "$2" -o jsonpath='{.status.readyReplicas}/{.status.replicas}' 2>/dev/null) || return 1
    case "$found" in
        /* | 0/*) return 1 ;;
    esac
    [ "${found%/*}" = "${found#*/}" ]
}
for part in istio-system:deployment/istio-ingressgateway istio-system:statefulset/authservice auth:deployment/dex \
    kubeflow:deployment/profiles-deployment kubeflow:deployment/notebook-controller-deployment \
    kubeflow:deployment/centraldashboard kubeflow:deployment/jupyter-web-app-deployment kubeflow:deployment/mysql \
    kubeflow:deployment/ml-pipeline; do
    ready "${part%%:*}" "${part#*:}" || { echo False; exit 0; }
done
echo True
