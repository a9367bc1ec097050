{{/* Secrets are mounted as files, one a setting, and named by NAME_FILE: they stand in no pod's description. */}}

{{/* The authority of Kafka's certificates, as `{"kind": "secret" | "configMap", "name", "key"}`, or `{}`. */}}
{{- define "meterbridge.authority" -}}
{{- $tls := .Values.kafka.tls -}}
{{- if $tls.existingSecret -}}
{{ dict "kind" "secret" "name" $tls.existingSecret "key" $tls.key | toJson }}
{{- else if $tls.existingConfigMap -}}
{{ dict "kind" "configMap" "name" $tls.existingConfigMap "key" $tls.key | toJson }}
{{- else if and .Values.strimzi.users.enabled (hasSuffix "SSL" .Values.kafka.securityProtocol) -}}
{{ dict "kind" "secret" "name" (printf "%s-cluster-ca-cert" .Values.strimzi.cluster) "key" "ca.crt" | toJson }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{- define "meterbridge.hasAuthority" -}}
{{- if (include "meterbridge.authority" . | fromJson).name }}true{{ end }}
{{- end }}

{{/* The certificate that a role shows to the brokers, as `{"name", "cert", "key"}`, or `{}`: the role's own, that of its
     Strimzi user, the general one; the first one wins. Takes root, component, values (of the role). */}}
{{- define "meterbridge.certificate" -}}
{{- $v := .root.Values -}}
{{- $tls := $v.kafka.tls -}}
{{- $users := and $v.strimzi.users.enabled (eq $v.strimzi.users.authentication "tls") -}}
{{- if not (hasSuffix "SSL" $v.kafka.securityProtocol) -}}
{}
{{- else if .values.tlsSecret -}}
{{ dict "name" .values.tlsSecret "cert" $tls.clientCertKey "key" $tls.clientKeyKey | toJson }}
{{- else if $users -}}
{{ dict "name" (include "meterbridge.componentName" .) "cert" "user.crt" "key" "user.key" | toJson }}
{{- else if $tls.clientSecret -}}
{{ dict "name" $tls.clientSecret "cert" $tls.clientCertKey "key" $tls.clientKeyKey | toJson }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{/* Where a secret setting lies, as `{"name", "key"}`, or `{}`: the role's own reference, a Strimzi user, the general
     reference, `existingSecret`, the chart's own Secret; the first one wins. */}}
{{- define "meterbridge.secretSource" -}}
{{- $v := .root.Values -}}
{{- $own := index (.values.secretRefs | default dict) .variable -}}
{{- $general := index $v.secretRefs .variable -}}
{{- $key := index $v.existingSecretKeys .variable -}}
{{- if $own -}}
{{ $own | toJson }}
{{- else if and $v.strimzi.users.enabled (eq .variable "KAFKA_SASL_PASSWORD") (hasPrefix "SASL" $v.kafka.securityProtocol) -}}
{{ dict "name" (include "meterbridge.componentName" .) "key" "password" | toJson }}
{{- else if $general -}}
{{ $general | toJson }}
{{- else if and $v.existingSecret $key -}}
{{ dict "name" $v.existingSecret "key" $key | toJson }}
{{- else if and (not $v.existingSecret) (index $v.secrets .variable) -}}
{{ dict "name" (printf "%s%s" (include "meterbridge.fullname" .root) (ternary "-hooks" "" (not (not .hook)))) "key" .variable | toJson }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{/* The sources of the volume with a role's secrets, as YAML; empty = it has none. */}}
{{- define "meterbridge.secretSources" -}}
{{- $reads := index (.root.Files.Get "files/roles.yaml" | fromYaml) .component -}}
{{- range $name := $reads.secrets }}
{{- $source := include "meterbridge.secretSource" (dict "root" $.root "component" $.component "values" $.values "hook" $.hook "variable" $name) | fromJson }}
{{- if $source.name }}
- secret:
    name: {{ $source.name }}
    items: [{key: {{ $source.key | quote }}, path: {{ $name }}}]
{{- end }}
{{- end }}
{{- if has "KAFKA_SSL_CAFILE" $reads.settings }}
{{- with include "meterbridge.authority" .root | fromJson }}
{{- if .name }}
- {{ .kind }}:
    name: {{ .name }}
    items: [{key: {{ .key | quote }}, path: kafka-ca.crt}]
{{- end }}
{{- end }}
{{- end }}
{{- if has "KAFKA_SSL_CERTFILE" $reads.settings }}
{{- with include "meterbridge.certificate" . | fromJson }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
      - {key: {{ .cert | quote }}, path: kafka-client.crt}
      - {key: {{ .key | quote }}, path: kafka-client.key}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The data of the chart's own Secret; empty = nothing is in it. */}}
{{- define "meterbridge.secretData" -}}
{{- if not .Values.existingSecret }}
{{- range $name, $value := .Values.secrets }}
{{- with $value }}
{{ $name }}: {{ . | b64enc }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
