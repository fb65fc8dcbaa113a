{{/* Names are fixed: the kinds are the cluster's, so a cluster has these operators once. */}}
{{- define "operators.name" -}}fleetplane-operators{{- end }}

{{- define "operators.selector" -}}
app.kubernetes.io/name: {{ include "operators.name" . }}
{{- end }}

{{- define "operators.labels" -}}
{{ include "operators.selector" . }}
app.kubernetes.io/part-of: fleetplane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* A file of an operator, which must be one the chart knows. */}}
{{- define "operators.file" -}}
{{- $text := .root.Files.Get (printf "files/%s/%s.yaml" .operator .file) -}}
{{- if not $text -}}
{{- fail (printf "operators: there is no operator %q in this chart" .operator) -}}
{{- end -}}
{{- $text -}}
{{- end }}

{{/* Webhooks of all operators of one phase ("mutating" or "validating"), led to where they are served. */}}
{{- define "operators.webhooks" -}}
{{- $root := .root -}}
{{- $exempt := append $root.Values.webhooks.exemptNamespaces $root.Release.Namespace -}}
{{- range $operator := $root.Values.operators }}
{{- range $webhook := fromYamlArray (include "operators.file" (dict "root" $root "operator" $operator "file" $.phase)) }}
{{- $path := $webhook.clientConfig.service.path }}
{{- $client := dict "service" (dict "name" (include "operators.name" $root) "namespace" $root.Release.Namespace "path" $path "port" 443) }}
{{- with $root.Values.webhooks.url }}
{{- $client = dict "url" (printf "%s%s" (trimSuffix "/" .) $path) }}
{{- end }}
{{- with $root.Values.webhooks.certificates.caBundle }}
{{- $_ := set $client "caBundle" . }}
{{- end }}
{{- $_ := set $webhook "clientConfig" $client }}
{{- with $root.Values.webhooks.failurePolicy }}
{{- $_ := set $webhook "failurePolicy" . }}
{{- end }}
{{- range $one := dig "namespaceSelector" "matchExpressions" list $webhook }}
{{- if and (eq $one.key "kubernetes.io/metadata.name") (has "fleetplane-system" $one.values) }}
{{- $_ := set $one "values" $exempt }}
{{- end }}
{{- end }}
{{ list $webhook | toYaml }}
{{- end }}
{{- end }}
{{- end }}
