"""The roles every cluster starts with, as tables.

Facts from Kubernetes' bootstrap policy (``system:*``, ``admin``, ``edit``, ``view``) and from what our own built-in
controllers do. Notation, one rule a line: ``verbs groups resources [= names]``; ``-`` is the core group; ``url`` in the
place of groups makes the rest URL paths; ``events`` alone stands for writing events. ``read`` is get, list, watch;
``write`` is create, update, patch, delete, deletecollection. A role starts at the margin, with ``+key`` for every
aggregation it feeds and ``<key`` for what it gathers.
"""

from __future__ import annotations

from typing import Final

CLUSTER_ROLES: Final = """
cluster-admin
  * * *
  * url *
admin <admin
edit +admin <edit
view +edit <view
system:aggregate-to-admin +admin
  create authorization.k8s.io localsubjectaccessreviews
  read,write rbac.authorization.k8s.io roles,rolebindings
system:aggregate-to-edit +edit
  read - pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy
  impersonate - serviceaccounts
  write - pods,pods/attach,pods/proxy,pods/exec,pods/portforward
  create - pods/eviction
  write - replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy
  write - persistentvolumeclaims,configmaps,secrets,events
  create - serviceaccounts/token
  write apps daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale
  write apps statefulsets,statefulsets/scale
  write autoscaling horizontalpodautoscalers
  write batch jobs,cronjobs
  write extensions daemonsets,deployments,deployments/scale,deployments/rollback,ingresses,networkpolicies
  write extensions replicasets,replicasets/scale,replicationcontrollers/scale
  write policy poddisruptionbudgets
  write networking.k8s.io networkpolicies,ingresses
  read,write coordination.k8s.io leases
  write resource.k8s.io resourceclaims,resourceclaimtemplates
system:aggregate-to-view +view
  read - pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status
  read - endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps
  read - limitranges,resourcequotas,bindings,events,pods/status,resourcequotas/status,namespaces/status
  read - replicationcontrollers/status,pods/log
  read - namespaces
  read discovery.k8s.io endpointslices
  read apps controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status
  read apps deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale
  read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status
  read batch jobs,cronjobs,cronjobs/status,jobs/status
  read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,networkpolicies
  read extensions ingresses,ingresses/status,replicasets,replicasets/scale,replicasets/status
  read extensions replicationcontrollers/scale
  read policy poddisruptionbudgets,poddisruptionbudgets/status
  read networking.k8s.io networkpolicies,ingresses,ingresses/status
  read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates
system:discovery
  get url /livez,/readyz,/healthz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*
system:monitoring
  get url /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*
system:basic-user
  create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews
  create authentication.k8s.io selfsubjectreviews
system:public-info-viewer
  get url /livez,/readyz,/healthz,/version,/version/
system:service-account-issuer-discovery
  get url /.well-known/openid-configuration,/openid/v1/jwks
system:cluster-trust-bundle-discovery
  read certificates.k8s.io clustertrustbundles
system:heapster
  read - events,pods,nodes,namespaces
  read extensions deployments
system:node
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews
  read - services
  read,create - nodes
  update,patch - nodes/status
  update,patch - nodes
  create,update,patch - events
  read - pods
  create,delete - pods
  update,patch - pods/status
  create - pods/eviction
  read - secrets,configmaps
  get - persistentvolumeclaims,persistentvolumes
  get - endpoints
  read,create certificates.k8s.io certificatesigningrequests
  get,create,update,patch,delete coordination.k8s.io leases
  get storage.k8s.io volumeattachments
  create - serviceaccounts/token
  get,update,patch - persistentvolumeclaims/status
  read storage.k8s.io csidrivers
  get,create,update,patch,delete storage.k8s.io csinodes
  read node.k8s.io runtimeclasses
  get resource.k8s.io resourceclaims
  read certificates.k8s.io clustertrustbundles
system:node-problem-detector
  get - nodes
  patch - nodes/status
  events
system:node-proxier
  list,watch - services,endpoints
  read - nodes
  list,watch discovery.k8s.io endpointslices
  events
system:node-bootstrapper
  read,create certificates.k8s.io certificatesigningrequests
system:kubelet-api-admin
  read - nodes
  proxy - nodes
  * - nodes/proxy,nodes/metrics,nodes/stats,nodes/log,nodes/spec,nodes/configz,nodes/healthz,nodes/pods
system:auth-delegator
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
system:kube-aggregator
  read - services,endpoints
system:kube-dns
  list,watch - endpoints,services
  list,watch discovery.k8s.io endpointslices
system:kube-controller-manager
  events
  create coordination.k8s.io leases
  get,update,patch coordination.k8s.io leases = kube-controller-manager
  create - secrets,serviceaccounts
  delete - secrets
  get - namespaces,secrets,serviceaccounts,configmaps
  update - secrets,serviceaccounts
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  list,watch * *
  create - serviceaccounts/token
fleetplane:virtual-clusters
  events
  read,patch,delete - pods
  create - pods/binding
  patch - pods/status
  read - configmaps,secrets,serviceaccounts
  create - serviceaccounts/token
  read,patch - services
  patch - services/status
  read - persistentvolumeclaims
  read,create,patch,delete - nodes,persistentvolumes
  patch - nodes/status
system:kube-scheduler
  events
  create coordination.k8s.io leases
  get,update,patch coordination.k8s.io leases = kube-scheduler
  read - nodes,namespaces
  read,delete - pods
  create - pods/binding,bindings
  patch,update - pods/status
  read - services,replicationcontrollers
  read apps,extensions replicasets
  read apps statefulsets
  read policy poddisruptionbudgets
  read scheduling.k8s.io priorityclasses
  read - persistentvolumeclaims,persistentvolumes
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  read storage.k8s.io csinodes,csidrivers,csistoragecapacities
system:volume-scheduler
  read,update,patch - persistentvolumes
  read storage.k8s.io storageclasses
  read,update,patch - persistentvolumeclaims
system:persistent-volume-provisioner
  read,create,delete - persistentvolumes
  read,update - persistentvolumeclaims
  read storage.k8s.io storageclasses
  watch - events
  events
system:certificates.k8s.io:certificatesigningrequests:nodeclient
  create certificates.k8s.io certificatesigningrequests/nodeclient
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
  create certificates.k8s.io certificatesigningrequests/selfnodeclient
system:certificates.k8s.io:legacy-unknown-approver
  approve certificates.k8s.io signers = kubernetes.io/legacy-unknown
system:certificates.k8s.io:kubelet-serving-approver
  approve certificates.k8s.io signers = kubernetes.io/kubelet-serving
system:certificates.k8s.io:kube-apiserver-client-approver
  approve certificates.k8s.io signers = kubernetes.io/kube-apiserver-client
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
  approve certificates.k8s.io signers = kubernetes.io/kube-apiserver-client-kubelet
"""

CONTROLLER_ROLES: Final = """
certificate-controller
  read,delete certificates.k8s.io certificatesigningrequests
  update,patch certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status
  approve certificates.k8s.io signers = kubernetes.io/kube-apiserver-client-kubelet
  sign certificates.k8s.io signers = kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet
  sign certificates.k8s.io signers = kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown
  create authorization.k8s.io subjectaccessreviews
  events
clusterrole-aggregation-controller
  read,escalate,patch,update rbac.authorization.k8s.io clusterroles
cronjob-controller
  read,update,patch batch cronjobs
  read,create,update,patch,delete batch jobs
  update,patch batch cronjobs/status
  update batch cronjobs/finalizers
  read,delete - pods
  events
daemon-set-controller
  read apps,extensions daemonsets
  update,patch apps,extensions daemonsets/status
  update apps,extensions daemonsets/finalizers
  read - nodes
  read,create,delete,patch - pods
  create - pods/binding
  read,create,update,patch,delete apps controllerrevisions
  events
deployment-controller
  read,update,patch apps,extensions deployments
  update,patch apps,extensions deployments/status
  update apps,extensions deployments/finalizers
  read,create,update,patch,delete apps,extensions replicasets
  read,update - pods
  events
disruption-controller
  read apps,extensions deployments,replicasets
  read - replicationcontrollers,pods
  read policy poddisruptionbudgets
  read apps statefulsets
  update,patch policy poddisruptionbudgets/status
  patch,update - pods/status
  get * */scale
  events
endpoint-controller
  read - pods,services
  read,create,update,patch,delete - endpoints
  create - endpoints/restricted
  events
endpointslice-controller
  read - nodes,pods,services
  update - services/finalizers
  read,create,update,patch,delete discovery.k8s.io endpointslices
  events
endpointslicemirroring-controller
  read - endpoints,services
  update - services/finalizers,endpoints/finalizers
  read,create,update,patch,delete discovery.k8s.io endpointslices
  events
ephemeral-volume-controller
  read - pods
  update - pods/finalizers
  read,create - persistentvolumeclaims
  events
generic-garbage-collector
  read,update,patch,delete * *
  events
horizontal-pod-autoscaler
  read autoscaling horizontalpodautoscalers
  update,patch autoscaling horizontalpodautoscalers/status
  get,update,patch * */scale
  read - pods
  list metrics.k8s.io pods
  get,list custom.metrics.k8s.io *
  get,list external.metrics.k8s.io *
  events
job-controller
  read,update,patch batch jobs
  update,patch batch jobs/status
  update batch jobs/finalizers
  read,create,delete,patch - pods
  events
namespace-controller
  read,delete - namespaces
  update,patch - namespaces/finalize,namespaces/status
  read,delete,deletecollection * *
node-controller
  read,delete,update,patch - nodes
  update,patch - nodes/status
  read,delete - pods
  update,patch - pods/status
  read coordination.k8s.io leases
  events
persistent-volume-binder
  read,create,update,patch,delete - persistentvolumes
  update,patch - persistentvolumes/status
  read,update,patch - persistentvolumeclaims
  update,patch - persistentvolumeclaims/status
  read,create,delete - pods
  read storage.k8s.io storageclasses
  read - nodes
  events
pod-garbage-collector
  read,delete - pods
  patch,update - pods/status
  read - nodes
pv-protection-controller
  read,update,patch - persistentvolumes
  events
pvc-protection-controller
  read,update,patch - persistentvolumeclaims
  read - pods
  events
replicaset-controller
  read,update,patch apps,extensions replicasets
  update,patch apps,extensions replicasets/status
  update apps,extensions replicasets/finalizers
  read,create,delete,patch - pods
  events
replication-controller
  read,update,patch - replicationcontrollers
  update,patch - replicationcontrollers/status
  update - replicationcontrollers/finalizers
  read,create,delete,patch - pods
  events
resourcequota-controller
  list,watch * *
  update,patch - resourcequotas/status
  events
root-ca-cert-publisher
  read,create,update,patch - configmaps
  read - namespaces
  events
service-account-controller
  read,create - serviceaccounts
  read - namespaces
  events
statefulset-controller
  read - pods
  read,update,patch apps statefulsets
  update,patch apps statefulsets/status
  update apps statefulsets/finalizers
  create,update,patch,delete - pods
  read,create,update,patch,delete apps controllerrevisions
  read,create,update,patch,delete - persistentvolumeclaims
  events
token-controller
  read,update,patch - serviceaccounts
  read,create,update,patch,delete - secrets
  events
ttl-after-finished-controller
  read,delete batch jobs
  events
validatingadmissionpolicy-status-controller
  read admissionregistration.k8s.io validatingadmissionpolicies
  get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status
  events
"""

NAMESPACED_ROLES: Final = """
kube-system/extension-apiserver-authentication-reader
  read - configmaps = extension-apiserver-authentication
kube-system/system::leader-locking-kube-controller-manager
  watch - configmaps
  get,update - configmaps = kube-controller-manager
kube-system/system::leader-locking-kube-scheduler
  watch - configmaps
  get,update - configmaps = kube-scheduler
kube-system/system:controller:bootstrap-signer
  read - secrets
kube-system/system:controller:token-cleaner
  read,delete - secrets
  events
kube-public/system:controller:bootstrap-signer
  read - configmaps
  update,patch - configmaps = cluster-info
  events
"""

CLUSTER_BINDINGS: Final = """
cluster-admin Group=system:masters
system:basic-user Group=system:authenticated
system:cluster-trust-bundle-discovery Group=system:serviceaccounts
system:discovery Group=system:authenticated
system:kube-controller-manager User=system:kube-controller-manager
system:kube-dns ServiceAccount=kube-system/kube-dns
system:kube-scheduler User=system:kube-scheduler ServiceAccount=kube-system/kube-scheduler
fleetplane:virtual-clusters ServiceAccount=fleetplane-system/vclusters
system:kubelet-api-admin User=kube-apiserver-kubelet-client
system:monitoring Group=system:monitoring
system:node
system:node-bootstrapper Group=system:bootstrappers
system:certificates.k8s.io:certificatesigningrequests:nodeclient Group=system:bootstrappers
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient Group=system:nodes
system:node-proxier User=system:kube-proxy
system:public-info-viewer Group=system:authenticated Group=system:unauthenticated
system:service-account-issuer-discovery Group=system:serviceaccounts
system:volume-scheduler User=system:kube-scheduler ServiceAccount=kube-system/kube-scheduler
"""
"""Name of the binding and of the ClusterRole, then subjects. Bootstrap tokens may ask for node certificates (kubeadm
binds the same roles); everything else is as in Kubernetes."""

NAMESPACED_BINDINGS: Final = """
kube-system/system::extension-apiserver-authentication-reader extension-apiserver-authentication-reader \
User=system:kube-controller-manager User=system:kube-scheduler
kube-system/system::leader-locking-kube-controller-manager system::leader-locking-kube-controller-manager \
User=system:kube-controller-manager ServiceAccount=kube-system/kube-controller-manager
kube-system/system::leader-locking-kube-scheduler system::leader-locking-kube-scheduler \
User=system:kube-scheduler ServiceAccount=kube-system/kube-scheduler
kube-system/system:controller:bootstrap-signer system:controller:bootstrap-signer \
ServiceAccount=kube-system/bootstrap-signer
kube-system/system:controller:token-cleaner system:controller:token-cleaner ServiceAccount=kube-system/token-cleaner
kube-public/system:controller:bootstrap-signer system:controller:bootstrap-signer \
ServiceAccount=kube-system/bootstrap-signer
"""
