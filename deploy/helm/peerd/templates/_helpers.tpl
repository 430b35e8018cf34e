{{- define "peerd.name" -}}
{{- .Values.nameOverride | default .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "peerd.selector" -}}
app.kubernetes.io/name: peerd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "peerd.labels" -}}
{{ include "peerd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "peerd.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "peerd.name" .) -}}
{{- end -}}

{{- define "peerd.priorityClass" -}}
{{- .Values.priorityClass.name | default (include "peerd.name" .) -}}
{{- end -}}

{{- define "peerd.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "peerd.name" .)) -}}
{{- end -}}
