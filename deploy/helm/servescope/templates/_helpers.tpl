{{- define "servescope.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "servescope.selector" -}}
app.kubernetes.io/name: servescope
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "servescope.labels" -}}
{{ include "servescope.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "servescope.image" -}}
image: {{ printf "%s:%s" .repository .tag | quote }}
imagePullPolicy: {{ .pullPolicy }}
{{- end -}}

{{- define "servescope.embedded" -}}
{{- if not .Values.clickhouse.url }}yes{{ end -}}
{{- end -}}

{{- define "servescope.collectorUrl" -}}
http://{{ include "servescope.name" . }}-collector.{{ .Release.Namespace }}.svc:4318
{{- end -}}

{{/* Of a pod: what Pod Security's level "restricted" wants. */}}
{{- define "servescope.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Of a container, likewise. */}}
{{- define "servescope.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Of every pod. Service links would be read as options: SERVESCOPE_TAP_PORT. */}}
{{- define "servescope.pod" -}}
enableServiceLinks: false
{{- with .root.Values.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ include "servescope.podSecurity" .root.Values.user | nindent 2 }}
{{- end -}}

{{/* The configuration of the middle: what the chart's services and probes rest on goes over what is given. */}}
{{- define "servescope.config" -}}
{{- $v := .Values -}}
{{- $embedded := include "servescope.embedded" . -}}
{{- $keys := list (dict "file" "/etc/servescope/keys/agent_hmac") -}}
{{- $collector := mergeOverwrite (dict "require_signature" true) (deepCopy $v.collector.config) -}}
{{- $_ := set $collector "host" "0.0.0.0" -}}
{{- $_ := set $collector "port" 4318 -}}
{{- $_ := set $collector "sender_keys" (concat $keys ($v.collector.config.sender_keys | default list)) -}}
{{- $_ := set $collector "clickhouse" ($v.clickhouse.url | default "http://127.0.0.1:8123") -}}
{{- if not $embedded -}}
{{- $_ := set $collector "user" $v.clickhouse.user -}}
{{- $_ := set $collector "password_file" "/etc/servescope/clickhouse/password" -}}
{{- end -}}
{{- $alerts := mergeOverwrite (deepCopy $v.alerts.config) (dict "health_host" "0.0.0.0" "health_port" 9465) -}}
{{- if $v.alerts.slos }}{{ $_ := set $alerts "slos" "/etc/servescope/config/slo.yaml" }}{{ end -}}
{{- $dashboard := mergeOverwrite (deepCopy $v.dashboard.config) (dict "host" "0.0.0.0" "port" 8501) -}}
{{ toYaml (dict "collector" $collector "alerts" $alerts "dashboard" $dashboard) }}
{{- end -}}
