{{/*
What goes beside a model server, for charts of yours with this one among their dependencies. All take

  (dict "values" .Values.servescope "release" .Release "deployment" "chat" "port" 8000 "engine" "vllm" "edge" "tap")

and are used as templates/example.yaml uses them:

  servescope.sidecar.labels           of the pod: who may send to the collector
  servescope.sidecar.initContainers   puts configuration, salt and probe into place; then the agent, which outlives the server
  servescope.sidecar.containers       the tap, where edge is "tap": clients go to its port 9080
  servescope.sidecar.serverEnv        of the server's container: where probe and spans go
  servescope.sidecar.serverArgs       of a vLLM: the middleware, where edge is "probe"
  servescope.sidecar.serverMounts     of the server's container: the probe's code and its socket
  servescope.sidecar.serverLifecycle  of the server's container: it stays until open requests have ended
  servescope.sidecar.volumes          of the pod
  servescope.sidecar.graceSeconds     of the pod: terminationGracePeriodSeconds

The instance is the pod. The server has to run as `sidecar.user`.
*/}}

{{- define "servescope.sidecar.config" -}}
{{- $s := .values.sidecar -}}
{{- $collector := $s.collector | default (printf "http://%s-collector.%s.svc:4318" (.release.Name | trunc 40 | trimSuffix "-") .release.Namespace) -}}
{{- $target := dict "instance" "$(POD_NAME)" "deployment" .deployment "engine" .engine "url" (printf "http://127.0.0.1:%d" (int .port)) -}}
{{- $fixed := dict "collector" $collector "key_file" "/etc/servescope/keys/agent_hmac" "pod" "$(POD_NAME)"
  "namespace" "$(POD_NAMESPACE)" "node" "$(NODE_NAME)" "health_host" "0.0.0.0" "health_port" 9464 "targets" (list $target)
  "tap" (mergeOverwrite (deepCopy ($s.config.tap | default dict)) (dict "drain_seconds" $s.drainSeconds)) -}}
{{- toYaml (dict "agent" (mergeOverwrite (deepCopy $s.config) $fixed)) -}}
{{- end -}}

{{- define "servescope.sidecar.security" -}}
runAsNonRoot: {{ ne (int .values.sidecar.user) 0 }}
runAsUser: {{ .values.sidecar.user }}
seccompProfile: {type: RuntimeDefault}
{{ include "servescope.security" . }}
{{- end -}}

{{- define "servescope.sidecar.labels" -}}
servescope/sender: "yes"
{{- end -}}

{{- define "servescope.sidecar.podEnv" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
{{- end -}}

{{- define "servescope.sidecar.initContainers" -}}
- name: servescope-prepare
  {{- include "servescope.image" .values.agentImage | nindent 2 }}
  # Configuration for this pod, the salt where a tap reads it, and the probe where the server's Python finds it.
  command: [/bin/sh, -euc]
  args:
    - |
      umask 077
      printf '%s\n' "$CONFIGURATION" > /var/lib/servescope/servescope.yaml
      mkdir -p /var/lib/servescope/keys
      cp --remove-destination /etc/servescope/keys/tenant_salt /var/lib/servescope/keys/tenant_salt
      umask 022
      cp -r /opt/servescope-probe/. /probe/
  env:
    {{- include "servescope.sidecar.podEnv" . | nindent 4 }}
    - name: CONFIGURATION
      value: | {{- include "servescope.sidecar.config" . | nindent 8 }}
  securityContext: {{ include "servescope.sidecar.security" . | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: servescope-keys, mountPath: /etc/servescope/keys, readOnly: true}
    - {name: servescope-data, mountPath: /var/lib/servescope}
    - {name: servescope-probe, mountPath: /probe}
- name: servescope-agent
  # Started before the server and ended after it: what the server tells last is sent too.
  restartPolicy: Always
  {{- include "servescope.image" .values.agentImage | nindent 2 }}
  args: [agent, --data, /var/lib/servescope, --config, /var/lib/servescope/servescope.yaml]
  env:
    - {name: SERVESCOPE_PROBE_SOCKET, value: /run/shared/servescope/probe.sock}
  securityContext: {{ include "servescope.sidecar.security" . | nindent 4 }}
  ports:
    - {name: agent-health, containerPort: 9464}
  livenessProbe:
    httpGet: {path: /healthz, port: agent-health}
    initialDelaySeconds: 20
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  resources: {{ toYaml .values.sidecar.resources | nindent 4 }}
  volumeMounts:
    - {name: servescope-keys, mountPath: /etc/servescope/keys, readOnly: true}
    - {name: servescope-data, mountPath: /var/lib/servescope}
    - {name: servescope-run, mountPath: /run/shared}
    - {name: servescope-tmp, mountPath: /tmp}
{{- end -}}

{{- define "servescope.sidecar.containers" -}}
{{- if eq .edge "tap" -}}
- name: servescope-tap
  {{- include "servescope.image" .values.agentImage | nindent 2 }}
  args:
    - tap
    - --instance
    - $(POD_NAME)
    - --deployment
    - {{ .deployment | quote }}
    - --engine
    - {{ .engine | quote }}
    - --upstream
    - http://127.0.0.1:{{ .port }}
    - --host
    - 0.0.0.0
    - --port
    - "9080"
    - --spool
    - /var/lib/servescope/spool
    - --keys
    - /var/lib/servescope/keys
    - --config
    - /var/lib/servescope/servescope.yaml
  env: {{ include "servescope.sidecar.podEnv" . | nindent 4 }}
  securityContext: {{ include "servescope.sidecar.security" . | nindent 4 }}
  ports:
    - {name: tap, containerPort: 9080}
  # Through it to the server: a pod is ready when both are.
  readinessProbe:
    httpGet: {path: /health, port: tap}
    timeoutSeconds: 5
  livenessProbe:
    tcpSocket: {port: tap}
    initialDelaySeconds: 10
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 6
  # Until nobody is led here any more.
  lifecycle: {preStop: {sleep: {seconds: 5}}}
  resources: {{ toYaml .values.sidecar.tapResources | nindent 4 }}
  volumeMounts:
    - {name: servescope-data, mountPath: /var/lib/servescope}
    - {name: servescope-tmp, mountPath: /tmp}
{{- end -}}
{{- end -}}

{{- define "servescope.sidecar.serverEnv" -}}
{{ include "servescope.sidecar.podEnv" . }}
- {name: PYTHONPATH, value: /opt/servescope-probe}
- {name: SERVESCOPE_PROBE_SOCKET, value: /run/shared/servescope/probe.sock}
- {name: SERVESCOPE_PROBE_INSTANCE, value: $(POD_NAME)}
{{- end -}}

{{- define "servescope.sidecar.serverArgs" -}}
{{- if eq .edge "probe" -}}
- --middleware
- servescope_probe.Edge
{{- end -}}
{{- end -}}

{{- define "servescope.sidecar.serverMounts" -}}
- {name: servescope-probe, mountPath: /opt/servescope-probe, readOnly: true}
- {name: servescope-run, mountPath: /run/shared}
{{- end -}}

{{- define "servescope.sidecar.serverLifecycle" -}}
preStop: {sleep: {seconds: {{ if eq .edge "tap" }}{{ add .values.sidecar.drainSeconds 10 }}{{ else }}5{{ end }}}}
{{- end -}}

{{- define "servescope.sidecar.graceSeconds" -}}
{{ add .values.sidecar.drainSeconds 40 }}
{{- end -}}

{{- define "servescope.sidecar.volumes" -}}
- name: servescope-keys
  secret: {secretName: {{ .values.keysSecret | quote }}, defaultMode: 0444}
- name: servescope-data
  emptyDir: {sizeLimit: 4Gi}
- name: servescope-probe
  emptyDir: {sizeLimit: 16Mi}
- name: servescope-run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: servescope-tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end -}}
