{{- define "ocrfleet.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ocrfleet.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ocrfleet.labels" -}}
{{ include "ocrfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ocrfleet.image" -}}
image: {{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end -}}

{{- define "ocrfleet.redisHost" -}}{{ include "ocrfleet.fullname" . }}-redis{{- end -}}
{{- define "ocrfleet.s3Host" -}}{{ include "ocrfleet.fullname" . }}-s3{{- end -}}

{{- /* Security settings of every pod: no root, writes to volumes only, no cluster token. */ -}}
{{- define "ocrfleet.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
automountServiceAccountToken: false
enableServiceLinks: false
{{- end -}}

{{- define "ocrfleet.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* How Redis and S3 are reached. */ -}}
{{- define "ocrfleet.environment" -}}
{{- $secret := required "redis.existingSecret: the name of a Secret with the key password (bundled) or url (external)" .Values.redis.existingSecret -}}
{{- if .Values.redis.bundled.enabled }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: password}}
- name: OCRFLEET_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "ocrfleet.redisHost" . }}:6379/0
{{- else }}
- name: OCRFLEET_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: url}}
{{- end }}
{{- include "ocrfleet.s3Environment" . }}
- name: OCRFLEET_STORE
  value: {{ .Values.store | quote }}
- name: OCRFLEET_CACHE
  value: /var/cache/ocrfleet
- name: OCRFLEET_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: OCRFLEET_DRAIN_SECONDS
  value: {{ .Values.drainSeconds | int64 | quote }}
{{- if not (kindIs "invalid" .Values.pricePerGpuHour) }}
- name: OCRFLEET_PRICE_PER_GPU_HOUR
  value: {{ .Values.pricePerGpuHour | quote }}
{{- end }}
{{- end -}}

{{- define "ocrfleet.s3Environment" }}
{{- include "ocrfleet.caEnvironment" . }}
{{- if or .Values.s3.existingSecret .Values.s3.bundled.enabled }}
{{- $secret := required "s3.existingSecret: the name of a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which the bundled S3 needs" .Values.s3.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
- name: OCRFLEET_S3_REGION
  value: {{ .Values.s3.region | quote }}
{{- if .Values.s3.bundled.enabled }}
- name: OCRFLEET_S3_ENDPOINT_URL
  value: http://{{ include "ocrfleet.s3Host" . }}:8333
{{- else if .Values.s3.endpoint }}
- name: OCRFLEET_S3_ENDPOINT_URL
  value: {{ .Values.s3.endpoint | quote }}
{{- end }}
{{- end -}}

{{- /* Where serve, watch and workers answer /metrics, to Prometheus' pods. */ -}}
{{- define "ocrfleet.metricsEnvironment" -}}
- name: OCRFLEET_METRICS_HOST
  value: {{ include "ocrfleet.host" . | quote }}
- name: OCRFLEET_METRICS_PORT
  value: "9100"
{{- end -}}

{{- /* The worker pools that are enabled, with what workerDefaults says where they say nothing. */ -}}
{{- define "ocrfleet.pools" -}}
{{- $pools := dict -}}
{{- range $name, $pool := .Values.workers -}}
{{- $whole := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy ($pool | default dict)) -}}
{{- if $whole.enabled -}}{{- $_ := set $pools $name $whole -}}{{- end -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{- /* The address that servers listen on. */ -}}
{{- define "ocrfleet.host" -}}{{ ternary "::" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}{{- end -}}

{{- /* Authorities of the cluster's own, for S3, Redis and downloads. */ -}}
{{- define "ocrfleet.caEnvironment" }}
{{- if .Values.caBundle.configMap }}
{{- range list "SSL_CERT_FILE" "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" }}
- name: {{ . }}
  value: /etc/ocrfleet/ca/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{- /* Mounts of a pod of the fleet beside its own; `of`, its values, has those of the user. */ -}}
{{- define "ocrfleet.extraMounts" }}
{{- if .root.Values.caBundle.configMap }}
- {name: ca, mountPath: /etc/ocrfleet/ca, readOnly: true}
{{- end }}
{{- with .of.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ocrfleet.extraVolumes" }}
{{- with .root.Values.caBundle }}
{{- if .configMap }}
- name: ca
  configMap: {name: {{ .configMap }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- with .of.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of a pod. Without a version: an upgrade restarts only pods whose container changes. */ -}}
{{- define "ocrfleet.podMetadata" -}}
labels: {{- include "ocrfleet.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .pool }}
  ocrfleet/pool: {{ . }}
  {{- end }}
{{- with .of.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Where a pod runs, and before which others. */ -}}
{{- define "ocrfleet.placement" }}
{{- $labels := merge (dict "app.kubernetes.io/component" .component) (include "ocrfleet.selector" .root | fromYaml) }}
{{- with .pool }}{{ $_ := set $labels "ocrfleet/pool" . }}{{ end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $labels)) | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
