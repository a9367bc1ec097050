{{/* The jobs before an installation or an upgrade. They are jobs and no init containers, because then only they need the
     accounts that may create topics and tables, and they run once and not once a pod. Nothing of the release exists yet when
     they run, so they have an account, a Secret and a NetworkPolicy of their own, with smaller weights. */}}

{{- define "meterbridge.createsTopics" -}}
{{- if and .Values.hooks.topics.enabled (not .Values.strimzi.topics.enabled) }}true{{ end }}
{{- end }}

{{- define "meterbridge.createsTables" -}}
{{- if and .Values.hooks.tables.enabled (include "meterbridge.postgres" .) }}true{{ end }}
{{- end }}

{{- define "meterbridge.hooks" -}}
{{- if or (include "meterbridge.createsTopics" .) (include "meterbridge.createsTables" .) }}true{{ end }}
{{- end }}

{{/* Annotations; what serves the jobs goes when they have succeeded, the jobs stay to be read. */}}
{{- define "meterbridge.hookAnnotations" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: {{ ternary "before-hook-creation,hook-succeeded" "before-hook-creation" .serves }}
{{- end }}

{{- define "meterbridge.hookJob" -}}
{{- $hooks := .root.Values.hooks -}}
{{- $values := merge (dict "resources" $hooks.resources) (index $hooks .component) -}}
{{- $annotations := include "meterbridge.hookAnnotations" (dict "weight" .weight "serves" false) | fromYaml -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "meterbridge.metadata" (dict "root" .root "component" .component "name" .component "annotations" $annotations) | nindent 2 }}
spec:
  backoffLimit: {{ int $hooks.backoffLimit }}
  activeDeadlineSeconds: {{ int $hooks.activeDeadlineSeconds }}
  ttlSecondsAfterFinished: {{ int $hooks.ttlSecondsAfterFinished }}
  template:
    {{- include "meterbridge.podTemplate" (dict "root" .root "component" .component "values" $values "arguments" .arguments "hook" true "restartPolicy" "Never" "account" (printf "%s-hooks" (include "meterbridge.fullname" .root))) | nindent 4 }}
{{- end }}
