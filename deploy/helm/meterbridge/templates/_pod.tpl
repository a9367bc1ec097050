{{/* The pod of a role. Takes root, component, values, and `arguments` of the image's command. */}}

{{/* A role's own value, or the general one of the same name. */}}
{{- define "meterbridge.podTemplate" -}}
{{- $v := .root.Values -}}
{{- $secretData := include "meterbridge.secretData" .root -}}
metadata:
  labels:
    {{- include "meterbridge.selector" . | nindent 4 }}
    {{- if .ports }}
    meterbridge/metrics: "true"
    {{- end }}
    {{- with mergeOverwrite (dict) $v.commonLabels $v.podLabels (.values.podLabels | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- if trim $secretData }}
    checksum/secrets: {{ sha256sum $secretData }}
    {{- end }}
    {{- with mergeOverwrite (dict) $v.podAnnotations (.values.podAnnotations | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .account | default (include "meterbridge.serviceAccount" .root) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.priorityClassName | default $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  containers:
    - name: {{ .component }}
      {{- include "meterbridge.container" . | nindent 6 }}
  volumes:
    {{- include "meterbridge.volumes" . | trim | nindent 4 }}
  {{- include "meterbridge.placement" . | nindent 2 }}
{{- end }}

{{- define "meterbridge.container" -}}
{{- $v := .root.Values -}}
image: {{ include "meterbridge.image" . | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
{{- with .command }}
command: {{ toJson . }}
{{- end }}
{{- with .arguments }}
args: {{ toJson . }}
{{- end }}
env:
  {{- include "meterbridge.env" . | trim | nindent 2 }}
{{- with $v.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .ports }}
ports:
  {{- range $name, $port := . }}
  - {name: {{ $name }}, containerPort: {{ int $port }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- with .probed }}
startupProbe:
  httpGet: {path: /health/live, port: {{ . }}}
  {{- toYaml $v.startupProbe | nindent 2 }}
readinessProbe:
  httpGet: {path: /health/ready, port: {{ . }}}
  {{- toYaml $v.readinessProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /health/live, port: {{ . }}}
  {{- toYaml $v.livenessProbe | nindent 2 }}
{{- end }}
{{- if and .serves $v.preStopSeconds }}
# The kubelet sends SIGTERM after this; meanwhile balancers learn that the pod is going.
lifecycle:
  preStop:
    exec: {command: [sleep, {{ int $v.preStopSeconds | quote }}]}
{{- end }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: tmp, mountPath: /var/cache/meterbridge, subPath: cache}
  {{- if include "meterbridge.secretSources" . | trim }}
  - {name: secrets, mountPath: /run/secrets/meterbridge, readOnly: true}
  {{- end }}
  {{- range $name, $path := .mounts }}
  - {name: {{ $name }}, mountPath: {{ $path }}}
  {{- end }}
  {{- with $v.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "meterbridge.volumes" -}}
{{- $v := .root.Values -}}
- name: tmp
  emptyDir: {sizeLimit: {{ $v.tmpSize }}}
{{- with include "meterbridge.secretSources" . | trim }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .scratch }}
- name: scratch
  emptyDir: {sizeLimit: {{ . }}}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "meterbridge.placement" -}}
{{- $v := .root.Values -}}
{{- $selector := dict "matchLabels" (include "meterbridge.selector" . | fromYaml) -}}
{{- with .values.nodeSelector | default $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
{{- with .values.affinity | default $v.affinity }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            {{- toYaml $selector | nindent 12 }}
{{- end }}
{{- with .values.topologySpreadConstraints | default $v.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml (merge (dict) . (dict "labelSelector" $selector)) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
