{{/* Names, labels and the image. Every helper takes a dict: `root` is the chart's context, `component` a role. */}}

{{- define "meterbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: the longest thing that is added, `-webhooks-headless`, then fits into a name. */}}
{{- define "meterbridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "meterbridge.componentName" -}}
{{ include "meterbridge.fullname" .root }}-{{ .component }}
{{- end }}

{{/* They select pods, and can never change: nothing of the values is in them but the two names. */}}
{{- define "meterbridge.selector" -}}
app.kubernetes.io/name: {{ include "meterbridge.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "meterbridge.labels" -}}
{{ include "meterbridge.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name, namespace, labels, annotations. `name` is added to the full name; `annotations` are the resource's own. */}}
{{- define "meterbridge.metadata" -}}
name: {{ include "meterbridge.fullname" .root }}{{ with .name }}-{{ . }}{{ end }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "meterbridge.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "meterbridge.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "meterbridge.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* A role's own tag or digest wins; a digest wins over a tag of the same place. */}}
{{- define "meterbridge.image" -}}
{{- $own := .values.image | default dict -}}
{{- $all := .root.Values.image -}}
{{- if $own.digest -}}
{{ $all.repository }}@{{ $own.digest }}
{{- else if $own.tag -}}
{{ $all.repository }}:{{ $own.tag }}
{{- else if $all.digest -}}
{{ $all.repository }}@{{ $all.digest }}
{{- else -}}
{{ $all.repository }}:{{ $all.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Whether there is Postgres: "true" or "". */}}
{{- define "meterbridge.postgres" -}}
{{- $url := include "meterbridge.secretSource" (dict "root" . "component" "project" "values" .Values.project "variable" "DATABASE_URL") | fromJson -}}
{{- if or .Values.postgres.host $url.name }}true{{ end }}
{{- end }}

{{/* The worker roles that run in this release, as a JSON object with a list. */}}
{{- define "meterbridge.workers" -}}
{{- $roles := list -}}
{{- range list "meter" "sink" "retry" "project" -}}
{{- if and (index $.Values .).enabled (or (ne . "project") (include "meterbridge.postgres" $)) -}}
{{- $roles = append $roles . -}}
{{- end -}}
{{- end -}}
{{ dict "roles" $roles | toJson }}
{{- end }}

{{/* The same with the servers. */}}
{{- define "meterbridge.running" -}}
{{- $roles := list -}}
{{- range list "webhooks" "api" -}}
{{- if (index $.Values .).enabled }}{{ $roles = append $roles . }}{{ end -}}
{{- end -}}
{{- dict "roles" (concat $roles (include "meterbridge.workers" . | fromJson).roles) | toJson }}
{{- end }}
