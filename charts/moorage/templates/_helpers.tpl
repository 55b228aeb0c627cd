{{/* Start of every name: the release's name, with the chart's name in it. */}}
{{- define "moorage.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of the operator's Deployment, and of all that it needs. */}}
{{- define "moorage.operator" -}}
{{- include "moorage.fullname" . -}}-operator
{{- end -}}

{{- define "moorage.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "moorage.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount that the operator shall use, or set serviceAccount.create: true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "moorage.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "moorage.labels" -}}
{{ include "moorage.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: a list of repository, tag and digest. */}}
{{- define "moorage.image" -}}
{{- $repository := index . 0 -}}{{- $tag := index . 1 -}}{{- $digest := index . 2 -}}
{{- if $digest -}}{{ $repository }}@{{ $digest }}{{- else -}}{{ $repository }}:{{ $tag }}{{- end -}}
{{- end -}}

{{- define "moorage.operatorImage" -}}
{{- $image := .Values.images.operator -}}
{{- include "moorage.image" (list $image.repository (default .Chart.AppVersion $image.tag) $image.digest) -}}
{{- end -}}

{{- define "moorage.routerImage" -}}
{{- default (include "moorage.operatorImage" .) .Values.router.image -}}
{{- end -}}

{{/* ClusterRole of the routers' agents, which the operator binds in each namespace; where namespaces are listed the chart does it. */}}
{{- define "moorage.routerRole" -}}
{{- include "moorage.fullname" . -}}-router-{{ .Release.Namespace }}
{{- end -}}

{{- define "moorage.runtimeImage" -}}
{{- $image := .Values.images.runtime -}}
{{- include "moorage.image" (list $image.repository (default .Chart.AppVersion $image.tag) $image.digest) -}}
{{- end -}}

{{- define "moorage.runtimeGPUImage" -}}
{{- $cpu := .Values.images.runtime -}}{{- $image := .Values.images.runtimeGPU -}}
{{- $tag := default (printf "%s-gpu" (default .Chart.AppVersion $cpu.tag)) $image.tag -}}
{{- include "moorage.image" (list (default $cpu.repository $image.repository) $tag $image.digest) -}}
{{- end -}}

{{/* What the schema can't see. */}}
{{- define "moorage.checkValues" -}}
{{- if ge (int64 .Values.models.drainSeconds) (int64 .Values.models.terminationGracePeriodSeconds) -}}
{{- fail "models.terminationGracePeriodSeconds must be larger than models.drainSeconds: what is in flight when the drain is over needs time to end" -}}
{{- end -}}
{{- if (urlParse .Values.prometheus.url).userinfo -}}
{{- fail "prometheus.url holds a user name or password; put them into a Secret and name it in prometheus.existingSecret" -}}
{{- end -}}
{{- if and (or .Values.prometheus.existingSecret .Values.prometheus.caBundle) (not .Values.prometheus.url) -}}
{{- fail "prometheus.existingSecret and prometheus.caBundle say how prometheus.url is asked: set it as well" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range .Values.registries -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "registries: the name %q is there twice; give each registry a name of its own" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- if (urlParse .trackingURI).userinfo -}}
{{- fail (printf "registries: the trackingURI of %q holds a user name or password; put them into a Secret and name it in existingSecret" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secrets that are mounted for the operator: a list. */}}
{{- define "moorage.mounted" -}}
{{- range .Values.registries }}
{{- if .existingSecret }}
- {volume: "registry-{{ .name }}", directory: /etc/moorage/registries/{{ .name }}, secret: {{ .existingSecret | quote }}}
{{- end }}
{{- end }}
{{- with .Values.prometheus.existingSecret }}
- {volume: prometheus, directory: /etc/moorage/prometheus, secret: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* How a declared server is asked: a list of its values and the directory of its Secret. */}}
{{- define "moorage.access" -}}
{{- $server := index . 0 -}}
{{- if $server.existingSecret }}
credentialsDirectory: {{ index . 1 }}
{{- end }}
{{- with $server.caBundle }}
caBundle: |
  {{- . | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Resources of a container, every amount as a text. */}}
{{- define "moorage.amounts" -}}
{{- $texts := dict -}}
{{- range $kind, $amounts := . -}}
{{- $of := dict -}}
{{- range $name, $amount := $amounts -}}
{{- $_ := set $of $name (kindIs "string" $amount | ternary $amount (int64 $amount | toString)) -}}
{{- end -}}
{{- $_ := set $texts $kind $of -}}
{{- end -}}
{{- toYaml $texts -}}
{{- end -}}

{{/* The operator's configuration: operator/src/moorage_operator/settings.py reads it. */}}
{{- define "moorage.config" -}}
images:
  runtime: {{ include "moorage.runtimeImage" . | quote }}
  runtimeGPU: {{ include "moorage.runtimeGPUImage" . | quote }}
  pullPolicy: {{ .Values.images.pullPolicy }}
{{- with .Values.registries }}
registries:
  {{- range . }}
  - name: {{ .name | quote }}
    trackingURI: {{ .trackingURI | quote }}
    {{- with include "moorage.access" (list . (printf "/etc/moorage/registries/%s" .name)) }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- if .readOnly }}
    readOnly: true
    {{- end }}
  {{- end }}
{{- end }}
policy:
  {{- toYaml .Values.policy | nindent 2 }}
{{- with .Values.prometheus }}
{{- if .url }}
prometheus:
  url: {{ .url | quote }}
  {{- with include "moorage.access" (list . "/etc/moorage/prometheus") }}
  {{- . | trim | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
fetchResources:
  {{- include "moorage.amounts" .Values.models.fetchResources | nindent 2 }}
router:
  image: {{ include "moorage.routerImage" . | quote }}
  replicas: {{ int64 .Values.router.replicas }}
  resources:
    {{- include "moorage.amounts" .Values.router.resources | nindent 4 }}
  agentResources:
    {{- include "moorage.amounts" .Values.router.agentResources | nindent 4 }}
  {{- with .Values.router.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ int64 .Values.router.terminationGracePeriodSeconds }}
  priorityClassName: {{ .Values.router.priorityClassName | quote }}
  {{- if not .Values.namespaces }}
  clusterRole: {{ include "moorage.routerRole" . }}
  {{- end }}
drainSeconds: {{ int64 .Values.models.drainSeconds }}
terminationGracePeriodSeconds: {{ int64 .Values.models.terminationGracePeriodSeconds }}
{{- with .Values.namespaces }}
namespaces:
  {{- toYaml . | nindent 2 }}
{{- end }}
logFormat: {{ .Values.operator.logFormat }}
logLevel: {{ .Values.operator.logLevel }}
workers: {{ int64 .Values.operator.workers }}
writesPerSecond: {{ .Values.operator.writesPerSecond }}
resyncSeconds: {{ .Values.operator.resyncSeconds }}
registryPollSeconds: {{ .Values.operator.registryPollSeconds }}
port: 8080
{{- end -}}
