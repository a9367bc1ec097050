{{/* What a schema cannot say: values that contradict each other end the rendering with a sentence. */}}

{{- define "meterbridge.checks" -}}
{{- $v := .Values -}}
{{- $partitions := int $v.kafka.partitions -}}
{{- $most := dict "meter" $partitions "sink" $partitions "retry" (include "meterbridge.retryTiers" . | int) "project" $partitions -}}
{{- range (include "meterbridge.workers" . | fromJson).roles -}}
{{- $role := index $v . -}}
{{- $limit := int (index $most .) -}}
{{- if and (not $role.keda.enabled) (gt (int $role.replicas) $limit) -}}
{{- fail (printf "%s.replicas is %d, but its topic has %d partitions: the other pods would do nothing" . (int $role.replicas) $limit) -}}
{{- end -}}
{{- if and $role.keda.enabled (gt (int $role.keda.maxReplicas) $limit) -}}
{{- fail (printf "%s.keda.maxReplicas is %d, but its topic has %d partitions: the other pods would do nothing" . (int $role.keda.maxReplicas) $limit) -}}
{{- end -}}
{{- if and $role.keda.enabled (gt (int $role.keda.minReplicas) (int $role.keda.maxReplicas)) -}}
{{- fail (printf "%s.keda.minReplicas is larger than maxReplicas" .) -}}
{{- end -}}
{{- end -}}
{{- range list "webhooks" "api" -}}
{{- $scaling := (index $v .).autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas is larger than maxReplicas" .) -}}
{{- end -}}
{{- end -}}
{{- include "meterbridge.checkSpool" . -}}
{{- include "meterbridge.checkKafka" . -}}
{{- include "meterbridge.checkSenders" . -}}
{{- if and $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled: every metric would be counted twice" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is needed: the gateways of the route" -}}
{{- end -}}
{{- end }}

{{- define "meterbridge.retryTiers" -}}
{{- range (.Files.Get "files/topics.yaml" | fromYaml).topics -}}
{{- if eq .partitions "RETRY_TIERS" }}{{ .count }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A size in MiB: 512Mi, 2Gi, 512MiB, 1GiB. */}}
{{- define "meterbridge.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- if contains "Ti" . }}{{ mul $number 1048576 }}{{ else if contains "Gi" . }}{{ mul $number 1024 }}{{ else }}{{ $number }}{{ end -}}
{{- end }}

{{- define "meterbridge.checkSpool" -}}
{{- $spool := .Values.webhooks.spool -}}
{{- if $spool.enabled -}}
{{- $file := include "meterbridge.mebibytes" $spool.maxSize | int -}}
{{- if lt (include "meterbridge.mebibytes" $spool.size | int) (add $file 16 | int) -}}
{{- fail (printf "webhooks.spool.size %s is too small: the spool takes up to %s, and its log 16 MiB" $spool.size $spool.maxSize) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "meterbridge.checkKafka" -}}
{{- $v := .Values -}}
{{- $sasl := hasPrefix "SASL" $v.kafka.securityProtocol -}}
{{- $certified := eq $v.strimzi.users.authentication "tls" -}}
{{- if and $v.strimzi.users.enabled (not $certified) (not (and $sasl (eq $v.kafka.saslMechanism "SCRAM-SHA-512"))) -}}
{{- fail "strimzi.users needs kafka.securityProtocol SASL_SSL or SASL_PLAINTEXT and kafka.saslMechanism SCRAM-SHA-512" -}}
{{- end -}}
{{- if and $v.strimzi.users.enabled $certified (ne $v.kafka.securityProtocol "SSL") -}}
{{- fail "strimzi.users.authentication tls needs kafka.securityProtocol SSL" -}}
{{- end -}}
{{- if and $v.kafka.tls.clientSecret (not (hasSuffix "SSL" $v.kafka.securityProtocol)) -}}
{{- fail (printf "kafka.tls.clientSecret is not used by kafka.securityProtocol %s: use SSL or SASL_SSL" $v.kafka.securityProtocol) -}}
{{- end -}}
{{- if and (or $v.strimzi.users.enabled $v.strimzi.topics.enabled) (not $v.strimzi.cluster) -}}
{{- fail "strimzi.cluster is needed: the name of Strimzi's Kafka" -}}
{{- end -}}
{{- if and $v.strimzi.users.enabled (include "meterbridge.createsTopics" .) (not (ternary $v.hooks.topics.tlsSecret $v.hooks.topics.secretRefs.KAFKA_SASL_PASSWORD $certified)) -}}
{{- fail "hooks.topics runs before strimzi.users exist: enable strimzi.topics, or give it an account in hooks.topics: its settings and secretRefs, or its tlsSecret" -}}
{{- end -}}
{{- if and $sasl (not $v.strimzi.users.enabled) -}}
{{- range (include "meterbridge.running" . | fromJson).roles -}}
{{- $role := index $v . -}}
{{- if not (or $v.kafka.saslUsername $role.settings.KAFKA_SASL_USERNAME) -}}
{{- fail (printf "kafka.saslUsername is needed by kafka.securityProtocol %s" $v.kafka.securityProtocol) -}}
{{- end -}}
{{- $source := include "meterbridge.secretSource" (dict "root" $ "component" . "values" $role "variable" "KAFKA_SASL_PASSWORD") | fromJson -}}
{{- if not $source.name -}}
{{- fail (printf "%s has no KAFKA_SASL_PASSWORD: name its key in existingSecretKeys, or its place in secretRefs" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A server that would accept anybody does not start: better to say so before the pod. */}}
{{- define "meterbridge.checkSenders" -}}
{{- $v := .Values -}}
{{- if $v.webhooks.enabled -}}
{{- $found := list -}}
{{- range $name := list "WEBHOOK_TOKEN" "WEBHOOK_SECRET" -}}
{{- $source := include "meterbridge.secretSource" (dict "root" $ "component" "webhooks" "values" $v.webhooks "variable" $name) | fromJson -}}
{{- if $source.name }}{{ $found = append $found $name }}{{ end -}}
{{- end -}}
{{- $open := or $v.settings.ALLOW_UNAUTHENTICATED $v.webhooks.settings.ALLOW_UNAUTHENTICATED -}}
{{- if not (or $found $open) -}}
{{- fail "no WEBHOOK_TOKEN and no WEBHOOK_SECRET: give existingSecret, secretRefs or secrets" -}}
{{- end -}}
{{- end -}}
{{- range list "sink" "retry" -}}
{{- $role := index $v . -}}
{{- $source := include "meterbridge.secretSource" (dict "root" $ "component" . "values" $role "variable" "LAGO_API_KEY") | fromJson -}}
{{- if and $role.enabled (not $source.name) -}}
{{- fail (printf "%s has no LAGO_API_KEY: give existingSecret, secretRefs or secrets" .) -}}
{{- end -}}
{{- end -}}
{{- end }}
