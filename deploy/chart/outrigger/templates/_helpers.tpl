{{/* The names are fixed: there is one mesh in a cluster, and sidecars, docs and the webhook's certificate name these. */}}
{{- define "outrigger.name" -}}outrigger-control{{- end }}

{{- define "outrigger.labels" -}}
app.kubernetes.io/name: outrigger
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: outrigger
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selectors hold on to. It must never change: a Deployment's selector can not. */}}
{{- define "outrigger.selector" -}}
app.kubernetes.io/name: outrigger
app.kubernetes.io/component: control-plane
{{- end }}

{{/* (dict "root" $ "which" "proxy"): an image by digest, else by tag. */}}
{{- define "outrigger.image" -}}
{{- $image := .root.Values.image -}}
{{- $digest := get $image.digests .which -}}
{{- $name := printf "%s%s" $image.registry (get $image .which) -}}
{{- if $digest }}{{ $name }}@{{ $digest }}{{ else }}{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* What no container here needs. */}}
{{- define "outrigger.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "outrigger.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.security.runAsUser }}
runAsUser: {{ . | int64 }}
{{- end }}
{{- with .Values.security.runAsGroup }}
runAsGroup: {{ . | int64 }}
{{- end }}
{{- with .Values.security.fsGroup }}
fsGroup: {{ . | int64 }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The permissions are a table that the control plane's tests hold its requests to: permissions.tsv. (dict "root" $ "scope" "own") */}}
{{- define "outrigger.rules" -}}
{{- $scope := .scope -}}
{{- $certManager := .root.Values.webhook.certManager.enabled -}}
{{- range .root.Files.Lines "permissions.tsv" }}
{{- $cells := splitList "\t" . }}
{{- if and (ge (len $cells) 5) (eq (first $cells) $scope) }}
{{- /* Where cert-manager writes caBundle nobody else has to. */}}
{{- if not (and $certManager (eq (index $cells 2) "mutatingwebhookconfigurations")) }}
- apiGroups: [{{ if eq (index $cells 1) "core" }}""{{ else }}{{ index $cells 1 }}{{ end }}]
  resources: [{{ index $cells 2 }}]
  verbs: [{{ index $cells 3 | replace "," ", " }}]
  {{- if ne (index $cells 4) "*" }}
  resourceNames: [{{ index $cells 4 | replace "," ", " }}]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
