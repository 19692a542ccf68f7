{{/* Containers and volumes of the middle. Each is used in the embedded store's pod or in a workload of its own. */}}

{{- define "servescope.mounts" -}}
- {name: config, mountPath: /etc/servescope/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "servescope.data" -}}
- {name: data, mountPath: /var/lib/servescope}
{{- end -}}

{{- define "servescope.store" -}}
- name: store
  {{- include "servescope.image" .Values.image | nindent 2 }}
  args: [store, --data, /var/lib/servescope, --port, "8123"]
  securityContext: {{ include "servescope.security" . | nindent 4 }}
  # It listens on loopback alone, where the kubelet does not come.
  startupProbe:
    exec: {command: &ping [/opt/servescope/bin/python, -ISc, "from urllib.request import urlopen; urlopen('http://127.0.0.1:8123/ping', timeout=5)"]}
    periodSeconds: 2
    timeoutSeconds: 10
    failureThreshold: 150
  livenessProbe:
    exec: {command: *ping}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  resources: {{ toYaml .Values.store.resources | nindent 4 }}
  volumeMounts:
    {{- include "servescope.data" . | nindent 4 }}
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "servescope.collector" -}}
- name: collector
  {{- include "servescope.image" .Values.image | nindent 2 }}
  args: [collector, --data, /var/lib/servescope, --config, /etc/servescope/config/servescope.yaml]
  securityContext: {{ include "servescope.security" . | nindent 4 }}
  ports:
    - {name: otlp, containerPort: 4318}
  # /healthz answers while the process lives, also with a store that is away: what arrives then waits in the log.
  startupProbe:
    httpGet: {path: /healthz, port: otlp}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 150
  readinessProbe:
    httpGet: {path: /healthz, port: otlp}
    timeoutSeconds: 5
  livenessProbe:
    httpGet: {path: /healthz, port: otlp}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  resources: {{ toYaml .Values.collector.resources | nindent 4 }}
  volumeMounts:
    {{- include "servescope.data" . | nindent 4 }}
    {{- include "servescope.mounts" . | nindent 4 }}
    - {name: keys, mountPath: /etc/servescope/keys, readOnly: true}
    {{- if not (include "servescope.embedded" .) }}
    - {name: clickhouse, mountPath: /etc/servescope/clickhouse, readOnly: true}
    {{- end }}
{{- end -}}

{{/* Where alerts and dashboard find the store: `part` is the key of the Secret. */}}
{{- define "servescope.storeUrl" -}}
- name: SERVESCOPE_CLICKHOUSE
  {{- if include "servescope.embedded" .root }}
  value: http://127.0.0.1:8123
  {{- else }}
  valueFrom: {secretKeyRef: {name: {{ .root.Values.clickhouse.secret | quote }}, key: {{ .part }}}}
  {{- end }}
{{- end -}}

{{- define "servescope.alerts" -}}
- name: alerts
  {{- include "servescope.image" .Values.image | nindent 2 }}
  args: [alerts, --data, /var/lib/servescope, --config, /etc/servescope/config/servescope.yaml]
  env: {{ include "servescope.storeUrl" (dict "root" . "part" "alerts") | nindent 4 }}
  securityContext: {{ include "servescope.security" . | nindent 4 }}
  ports:
    - {name: alerts-health, containerPort: 9465}
  startupProbe:
    httpGet: {path: /healthz, port: alerts-health}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 150
  # 503 from it means that a task of the pager has stopped: that is mended by a new start.
  livenessProbe:
    httpGet: {path: /healthz, port: alerts-health}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  resources: {{ toYaml .Values.alerts.resources | nindent 4 }}
  volumeMounts:
    {{- include "servescope.data" . | nindent 4 }}
    {{- include "servescope.mounts" . | nindent 4 }}
    {{- if .Values.alerts.secret }}
    - {name: alerts, mountPath: /etc/servescope/alerts, readOnly: true}
    {{- end }}
{{- end -}}

{{- define "servescope.dashboard" -}}
- name: dashboard
  {{- include "servescope.image" .Values.image | nindent 2 }}
  args:
    - dashboard
    {{- if include "servescope.embedded" . }}
    - --data
    - /var/lib/servescope
    {{- end }}
    - --config
    - /etc/servescope/config/servescope.yaml
    {{- if .Values.alerts.slos }}
    - --slos
    - /etc/servescope/config/slo.yaml
    {{- end }}
  env: {{ include "servescope.storeUrl" (dict "root" . "part" "dashboard") | nindent 4 }}
  securityContext: {{ include "servescope.security" . | nindent 4 }}
  ports:
    - {name: dashboard, containerPort: 8501}
  startupProbe:
    httpGet: {path: /_stcore/health, port: dashboard}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 150
  readinessProbe:
    httpGet: {path: /_stcore/health, port: dashboard}
    timeoutSeconds: 5
  livenessProbe:
    httpGet: {path: /_stcore/health, port: dashboard}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  resources: {{ toYaml .Values.dashboard.resources | nindent 4 }}
  volumeMounts:
    {{- if include "servescope.embedded" . }}
    {{- include "servescope.data" . | nindent 4 }}
    {{- end }}
    {{- include "servescope.mounts" . | nindent 4 }}
{{- end -}}

{{- define "servescope.commonVolumes" -}}
- name: config
  configMap: {name: {{ include "servescope.name" . }}-config}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- end -}}

{{- define "servescope.alertsVolume" -}}
{{- with .Values.alerts.secret }}
- name: alerts
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "servescope.disk" -}}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources: {requests: {storage: {{ .size }}}}
{{- end -}}
