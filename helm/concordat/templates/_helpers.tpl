{{- define "concordat.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "concordat.dir" -}}/var/lib/concordat{{- end -}}

{{- define "concordat.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{- define "concordat.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
app.kubernetes.io/part-of: concordat
concordat/agency: {{ .root.Values.agency.name | quote }}
{{ include "concordat.selector" . }}
{{- end -}}

{{- define "concordat.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "concordat.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "concordat.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every container has. */}}
{{- define "concordat.container" -}}
image: {{ include "concordat.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
- name: CONCORDAT_DIR
  value: {{ include "concordat.dir" . }}
- name: CONCORDAT_LOG
  value: {{ .Values.log | quote }}
- name: CONCORDAT_SERVERS
  value: {{ .Values.image.serversDir | quote }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* What every pod has. */}}
{{- define "concordat.pod" -}}
serviceAccountName: {{ include "concordat.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.podSecurity.runAsUser }}
  runAsGroup: {{ .Values.podSecurity.runAsGroup }}
  fsGroup: {{ .Values.podSecurity.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* Unix sockets do not cross hosts: beside the validator. */}}
{{- define "concordat.beside" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
{{- include "concordat.selector" (dict "root" . "component" "validator") | nindent 10 }}
{{- end -}}

{{/* Mounted secrets belong to root and a group; the node's processes want files of mode 0600 of their own. */}}
{{- define "concordat.keysInit" -}}
- name: keys
{{- include "concordat.container" . | nindent 2 }}
  command: [concordat, pod, keys, --from, /etc/concordat/secrets]
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  volumeMounts:
  - {name: keys, mountPath: {{ include "concordat.dir" . }}/keys}
  - {name: secrets, mountPath: /etc/concordat/secrets, readOnly: true}
{{- end -}}

{{/* Volumes of keys: dict root, own (list of file names or "from=to"), nats (secret, key). */}}
{{- define "concordat.keysVolumes" -}}
- name: keys
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
{{- if .own }}
    - secret:
        name: {{ .root.Values.keys.existingSecret | quote }}
        items:
{{- range .own }}
{{- $parts := splitList "=" . }}
        - {key: {{ first $parts }}, path: {{ last $parts }}}
{{- end }}
{{- end }}
{{- with .nats }}
    - secret:
        name: {{ .secret | quote }}
        items:
        - {key: {{ .key | quote }}, path: nats.password}
{{- end }}
{{- end -}}

{{- define "concordat.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size | quote }}
{{- end -}}

{{- define "concordat.p2pAddress" -}}
{{- default (printf "%s-p2p.%s.svc:%v" (include "concordat.fullname" .) .Release.Namespace .Values.validator.p2p.port) .Values.validator.p2p.externalAddress -}}
{{- end -}}

{{- define "concordat.nats" -}}
{{- dict "url" .Values.nats.url "monitor" .Values.nats.monitor "user" .user "password" "file:keys/nats.password" | toJson -}}
{{- end -}}

{{/* node.yaml; `listen` is where the broker listens or, for an adapter, where it finds the broker. */}}
{{- define "concordat.node" -}}
{{- $v := .root.Values -}}
{{- $nats := include "concordat.nats" (dict "Values" $v "user" (default $v.agency.name $v.nats.user)) | fromJson -}}
{{- $account := $v.agency.name | upper | replace "-" "_" -}}
{{- $node := dict
  "version" 1
  "agency" $v.agency.name
  "chain" $v.chainId
  "listen" .listen
  "nats" $nats
  "exchange" (dict "account" $v.exchange.account "own" $account)
  "comet" (dict "rpc" "unix:shared/run/rpc.sock" "p2p" (include "concordat.p2pAddress" .root))
  "node_socket" "shared/run/node.sock"
  "abci_socket" "shared/run/abci.sock"
-}}
{{- with $v.peers }}{{ $_ := set $node "peers" . }}{{ end -}}
{{- if $v.limits }}
{{- $limits := dict -}}
{{- range $k, $n := $v.limits }}{{ $_ := set $limits $k (int64 $n) }}{{ end -}}
{{- $_ := set $node "limits" $limits -}}
{{- end -}}
{{- toYaml $node -}}
{{- end -}}

{{/* A mounted document's key may not hold every character of its file name: `stops@1.json`. */}}
{{- define "concordat.documentKey" -}}
{{- regexReplaceAll "[^-._a-zA-Z0-9]" . "_at_" -}}
{{- end -}}

{{- define "concordat.documentData" -}}
{{- range $name, $text := .files }}
{{ include "concordat.documentKey" (printf "%s%s" $name $.ext) }}: |
{{- $text | trimSuffix "\n" | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* A volume with the documents under their file names. */}}
{{- define "concordat.documentVolume" -}}
- name: {{ .kind }}
  configMap:
    name: {{ include "concordat.fullname" .root }}-{{ .kind }}
{{- with .files }}
    items:
{{- range $name, $_ := . }}
{{- $file := printf "%s%s" $name $.ext }}
    - {key: {{ include "concordat.documentKey" $file | quote }}, path: {{ $file | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "concordat.documentVolumes" -}}
{{ include "concordat.documentVolume" (dict "root" . "kind" "datasets" "files" .Values.datasets "ext" ".yaml") }}
{{ include "concordat.documentVolume" (dict "root" . "kind" "schemas" "files" .Values.schemas "ext" "") }}
{{ include "concordat.documentVolume" (dict "root" . "kind" "agreements" "files" .Values.agreements "ext" ".yaml") }}
{{- end -}}

{{- define "concordat.documentMounts" -}}
{{- $dir := include "concordat.dir" . -}}
- {name: datasets, mountPath: {{ $dir }}/datasets, readOnly: true}
- {name: schemas, mountPath: {{ $dir }}/schemas, readOnly: true}
- {name: agreements, mountPath: {{ $dir }}/agreements, readOnly: true}
{{- end -}}

{{/* A changed configuration rolls the pods. */}}
{{- define "concordat.checksum" -}}
{{- $lines := list -}}
{{- range .files -}}
{{- $lines = append $lines (printf "checksum/%s: %s" (trimSuffix ".yaml" .) (include (print $.root.Template.BasePath "/" .) $.root | sha256sum)) -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "concordat.podLabels" -}}
{{ include "concordat.labels" . }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
