{{/* Names, labels and the parts that more than one object has. */}}

{{- define "postern.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "postern.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "postern.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "postern.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "component" "service") */}}
{{- define "postern.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postern.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "postern.labels" -}}
{{ include "postern.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (dict "image" .Values.image "root" $) */}}
{{- define "postern.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "postern.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "postern.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "postern.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "postern.fullname" .) }}
{{- end }}

{{- define "postern.sqlite" -}}
{{- if eq .Values.stores.database "sqlite" }}true{{ end }}
{{- end }}

{{/* Both stores allow only one process at a time where one of them is embedded. */}}
{{- define "postern.embedded" -}}
{{- if or (eq .Values.stores.database "sqlite") (not .Values.stores.redis) }}true{{ end }}
{{- end }}

{{- define "postern.many" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{- define "postern.migrates" -}}
{{- if and .Values.migration.enabled (not (include "postern.sqlite" .)) }}true{{ end }}
{{- end }}

{{- define "postern.port" -}}{{ .Values.settings.port | default 7070 | int }}{{- end }}
{{- define "postern.operationsPort" -}}{{ .Values.settings.operations_port | default 7071 | int }}{{- end }}
{{- define "postern.gatewayPort" -}}{{ .Values.gateway.settings.port | default 8080 | int }}{{- end }}
{{- define "postern.gatewayOperationsPort" -}}{{ .Values.gateway.settings.operations_port | default 8081 | int }}{{- end }}

{{/* What of the console's host the gateway is given: everything, or its pages alone where a proxy in front only asks it. */}}
{{- define "postern.gatewayPath" -}}
{{- if eq .Values.gateway.settings.preset "forward-auth" }}{{ .Values.gateway.settings.prefix | default "/2fa" }}{{ else }}/{{ end }}
{{- end }}

{{/* What cannot work is refused before anything is installed, in a sentence that says what to do. */}}
{{- define "postern.check" -}}
{{- if and (include "postern.embedded" .) (include "postern.many" .) }}
{{- fail "More than one replica needs PostgreSQL and Redis: embedded stores belong to one process, and a second one would count attempts for itself. Set replicas to 1 and autoscaling.enabled to false, or stores.database to postgres and stores.redis to true." }}
{{- end }}
{{- if not .Values.tenants }}
{{- fail "tenants is empty: name at least one console. Make its key with `postern tenants key <tenant> <key id>` and put the entry that it prints under tenants[0].keys." }}
{{- end }}
{{- if and .Values.secrets.generate (not (and (include "postern.sqlite" .) (not .Values.stores.redis))) }}
{{- fail "secrets.generate makes keys only; with PostgreSQL or Redis their addresses are secret too. Make a Secret and name it in secrets.existingSecret." }}
{{- end }}
{{- if not (or .Values.secrets.existingSecret .Values.secrets.external.enabled .Values.secrets.generate) }}
{{- fail "The service needs its keys: name a Secret in secrets.existingSecret, or turn on secrets.external.enabled (or secrets.generate for a try)." }}
{{- end }}
{{- if gt (len (compact (list .Values.secrets.existingSecret (.Values.secrets.external.enabled | ternary "x" "") (.Values.secrets.generate | ternary "x" "")))) 1 }}
{{- fail "Only one of secrets.existingSecret, secrets.external.enabled and secrets.generate can say where the keys come from." }}
{{- end }}
{{- if and .Values.secrets.external.enabled (not (and .Values.secrets.external.storeRef.name .Values.secrets.external.entry)) }}
{{- fail "secrets.external needs storeRef.name and entry: the store, and the entry in it." }}
{{- end }}
{{- if .Values.gateway.enabled }}
{{- if not .Values.gateway.secret.existingSecret }}
{{- fail "The gateway needs the tenant's gate key: name a Secret in gateway.secret.existingSecret." }}
{{- end }}
{{- range list "upstream" "public_origin" "preset" }}
{{- if not (index $.Values.gateway.settings .) }}
{{- fail (printf "gateway.settings.%s is missing: the gateway needs the console behind it (upstream), the origin that browsers see (public_origin) and what console it is (preset)." .) }}
{{- end }}
{{- end }}
{{- if and .Values.gateway.ingress.enabled (not .Values.gateway.ingress.hosts) }}
{{- fail "gateway.ingress.hosts is empty: an Ingress without a host would answer for every name." }}
{{- end }}
{{- if and .Values.gateway.httpRoute.enabled (not .Values.gateway.httpRoute.parentRefs) }}
{{- fail "gateway.httpRoute.parentRefs is empty: name the Gateway that the route belongs to." }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod of the restricted Pod Security Standard. */}}
{{- define "postern.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "postern.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Settings that are no secret, as the service reads them. */}}
{{- define "postern.config" -}}
{{- range $name, $value := .Values.settings }}
POSTERN_{{ upper $name }}: {{ ($value | kindIs "float64") | ternary (printf "%v" ($value | int64)) (printf "%v" $value) | quote }}
{{- end }}
{{- if not (hasKey .Values.settings "migrate_on_start") }}
POSTERN_MIGRATE_ON_START: {{ include "postern.migrates" . | empty | quote }}
{{- end }}
POSTERN_TENANTS: {{ .Values.tenants | toJson | quote }}
{{- end }}

{{/* Where a container of the service has its settings from: (dict "root" $ "config" "<name of the ConfigMap>") */}}
{{- define "postern.env" -}}
{{- $values := .root.Values }}
{{- $secret := include "postern.secretName" .root }}
envFrom:
  - configMapRef:
      name: {{ .config }}
env:
  - name: POSTERN_ENCRYPTION_KEYS
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.encryptionKeys }} }
  - name: POSTERN_SERVER_KEY
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.serverKey }} }
  {{- if include "postern.sqlite" .root }}
  - name: POSTERN_DATABASE
    value: sqlite:/data/postern.db
  {{- else }}
  - name: POSTERN_DATABASE
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.database }} }
  {{- end }}
  {{- if $values.stores.redis }}
  - name: POSTERN_REDIS
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.redis }} }
  {{- end }}
  {{- if $values.secrets.redisSentinelPassword }}
  - name: POSTERN_REDIS_SENTINEL_PASSWORD
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.redisSentinelPassword }} }
  {{- end }}
  {{- if $values.secrets.smtp }}
  - name: POSTERN_SMTP
    valueFrom:
      secretKeyRef: { name: {{ $secret }}, key: {{ $values.secrets.keys.smtp }} }
  {{- end }}
{{- end }}

{{- define "postern.spread" -}}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "postern.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "postern.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Requests are still served while a pod leaves: preStop, then the drain, then what is under way. */}}
{{- define "postern.grace" -}}
{{- add (int .root.Values.preStopSeconds) (.drain | default 5 | int) 15 }}
{{- end }}

{{- define "postern.lifecycle" -}}
{{- if gt (int .Values.preStopSeconds) 0 }}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ .Values.preStopSeconds | quote }}]
{{- end }}
{{- end }}

{{- define "postern.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: operations }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /livez, port: operations }
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /readyz, port: operations }
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
