{{/* Settings become variables in the pod's own template. So a pod starts again when one of its own has changed, and the
     jobs before an installation need no ConfigMap that is not there yet. Which role reads which is in files/roles.yaml. */}}

{{/* A value as Kubernetes wants it: text. Numbers of YAML are floats in Helm. */}}
{{- define "meterbridge.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* The settings that the chart's own values say, by variable. */}}
{{- define "meterbridge.structured" -}}
{{- $v := .root.Values -}}
KAFKA_BOOTSTRAP_SERVERS: {{ required "kafka.bootstrapServers is needed: Kafka's brokers, host:port" $v.kafka.bootstrapServers | quote }}
KAFKA_PARTITIONS: {{ int $v.kafka.partitions | quote }}
KAFKA_REPLICATION_FACTOR: {{ int $v.kafka.replicationFactor | quote }}
KAFKA_SECURITY_PROTOCOL: {{ $v.kafka.securityProtocol }}
{{- if hasPrefix "SASL" $v.kafka.securityProtocol }}
KAFKA_SASL_MECHANISM: {{ $v.kafka.saslMechanism }}
KAFKA_SASL_USERNAME: {{ ternary (include "meterbridge.componentName" .) $v.kafka.saslUsername $v.strimzi.users.enabled | quote }}
{{- end }}
{{- if include "meterbridge.hasAuthority" .root }}
KAFKA_SSL_CAFILE: /run/secrets/meterbridge/kafka-ca.crt
{{- end }}
{{- if (include "meterbridge.certificate" . | fromJson).name }}
KAFKA_SSL_CERTFILE: /run/secrets/meterbridge/kafka-client.crt
KAFKA_SSL_KEYFILE: /run/secrets/meterbridge/kafka-client.key
{{- end }}
TOPIC_PREFIX: {{ $v.kafka.topicPrefix | quote }}
DEPLOYMENT_NAME: {{ $v.deploymentName | quote }}
LAGO_API_URL: {{ required "lago.url is needed: Lago's API, without /api/v1" $v.lago.url | quote }}
POSTGRES_HOST: {{ $v.postgres.host | quote }}
POSTGRES_PORT: {{ int $v.postgres.port | quote }}
POSTGRES_USER: {{ $v.postgres.user | quote }}
POSTGRES_DB: {{ $v.postgres.database | quote }}
HOST: 0.0.0.0
METRICS_PORT: "9090"
PORT: "8080"
API_PORT: "3002"
{{- $ingress := printf "http://%s:%d" (include "meterbridge.componentName" (dict "root" .root "component" "webhooks")) (int $v.webhooks.service.port) }}
CANARY_URL: {{ $v.canary.url | default $ingress | quote }}
{{- if $v.webhooks.spool.enabled }}
SPOOL_PATH: /var/lib/meterbridge/spool/calls.db
SPOOL_MAX_BYTES: {{ $v.webhooks.spool.maxSize | quote }}
{{- end }}
{{- end }}

{{/* The variables of a container, as a list. Takes root, component, values (of the role). */}}
{{- define "meterbridge.env" -}}
{{- $reads := index (.root.Files.Get "files/roles.yaml" | fromYaml) .component -}}
{{- $given := mergeOverwrite (include "meterbridge.structured" . | fromYaml) (deepCopy .root.Values.settings) -}}
{{- $env := dict -}}
{{- range $name, $value := $given -}}
{{- if has $name $reads.settings }}{{ $_ := set $env $name $value }}{{ end -}}
{{- end -}}
{{- $env = mergeOverwrite $env (.values.settings | default dict) -}}
{{- range $name, $value := $env }}
{{- $text := include "meterbridge.text" $value }}
{{- if $text }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- range $name := $reads.secrets }}
{{- $source := include "meterbridge.secretSource" (dict "root" $.root "component" $.component "values" $.values "hook" $.hook "variable" $name) | fromJson }}
{{- if $source.name }}
- name: {{ $name }}_FILE
  value: /run/secrets/meterbridge/{{ $name }}
{{- end }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
