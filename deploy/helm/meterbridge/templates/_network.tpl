{{/* Rules of a NetworkPolicy. */}}

{{/* The ports of Kafka: given, or those of the bootstrap servers. */}}
{{- define "meterbridge.kafkaPorts" -}}
{{- $ports := list -}}
{{- if .Values.networkPolicy.kafkaPorts -}}
{{- range .Values.networkPolicy.kafkaPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- else -}}
{{- range splitList "," .Values.kafka.bootstrapServers -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | default "9092" | int) -}}
{{- end -}}
{{- end -}}
{{ dict "ports" (uniq $ports) | toJson }}
{{- end }}

{{- define "meterbridge.portOfUrl" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/* What the pods of `to` may reach: dns, kafka, postgres, lago, others, ingress (the webhooks of this release). */}}
{{- define "meterbridge.egress" -}}
{{- $v := .root.Values -}}
{{- $n := $v.networkPolicy -}}
{{- $ports := dict "kafka" (include "meterbridge.kafkaPorts" .root | fromJson).ports "postgres" (list (int $v.postgres.port)) "lago" (list (include "meterbridge.portOfUrl" $v.lago.url | int)) "others" $n.othersPorts "ingress" (list 8080) -}}
{{- $webhooks := dict "matchLabels" (include "meterbridge.selector" (dict "root" .root "component" "webhooks") | fromYaml) -}}
{{- $peers := dict "dns" $n.dnsTo "kafka" $n.kafkaTo "postgres" $n.postgresTo "lago" $n.lagoTo "others" $n.othersTo "ingress" (list (dict "podSelector" $webhooks)) -}}
{{- range $target := .to }}
- ports:
  {{- if eq $target "dns" }}
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- else }}
  {{- range index $ports $target }}
    - {protocol: TCP, port: {{ int . }}}
  {{- end }}
  {{- end }}
  {{- with index $peers $target }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $n.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
