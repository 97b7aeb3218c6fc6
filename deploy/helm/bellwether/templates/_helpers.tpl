{{/* It has "bellwether" in it, always: alerts on the scrape look for that in the name of the job. */}}
{{- define "bellwether.name" -}}
{{- if contains "bellwether" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-bellwether" (.Release.Name | trunc 39 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "bellwether.selector" -}}
app.kubernetes.io/name: bellwether
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bellwether.labels" -}}
{{ include "bellwether.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A number in base units: as it is, or written as a share, a duration or a size. Large ones without an exponent. */}}
{{- define "bellwether.number" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1 "s" 1 "m" 60 "h" 3600 "d" 86400 "%" 0.01 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 -}}
{{- $digits := regexFind "^-?[0-9]+(\\.[0-9]+)?" . -}}
{{- $unit := trimPrefix $digits . | trim -}}
{{- if or (eq $digits "") (not (hasKey $units $unit)) -}}
{{- fail (printf "settings: %q cannot be a threshold: write a number in base units, or for example 45m, 10%% or 64MiB" .) -}}
{{- end -}}
{{- include "bellwether.number" (mulf (float64 $digits) (get $units $unit)) -}}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{- int64 . -}}
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
{{- . -}}
{{- else -}}
{{- fail (printf "settings: a threshold is missing or no number: %v" .) -}}
{{- end -}}
{{- end -}}

{{/* Whether a group of rules or a dashboard of this name belongs to the profile. */}}
{{- define "bellwether.belongs" -}}
{{- $profile := .root.Values.config.profile | default .root.Values.profile -}}
{{- if or (eq $profile "decisionbox") (not (contains "decisionbox" .name)) -}}true{{- end -}}
{{- end -}}

{{/* The groups of alert rules with the settings in their places, as JSON. */}}
{{- define "bellwether.groups" -}}
{{- $root := . -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "files/rules.json" | required "files/rules.json is missing" | fromJson).groups -}}
{{- if include "bellwether.belongs" (dict "root" $root "name" $group.name) -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $out := omit $rule "key" "before" "after" -}}
{{- if $rule.key -}}
{{- $settings := $root.Values.settings -}}
{{- range $rule.key -}}
{{- $settings = get ($settings | default dict) . -}}
{{- end -}}
{{- if not $settings -}}
{{- fail (printf "settings.%s is missing" (join "." $rule.key)) -}}
{{- end -}}
{{- if hasKey $rule "before" -}}
{{- $_ := set $out "expr" (printf "%s%s%s" $rule.before (include "bellwether.number" $settings.threshold) $rule.after) -}}
{{- end -}}
{{- if $rule.alert -}}
{{- if or (hasKey $rule "for") (ne $settings.for "0s") -}}
{{- $_ := set $out "for" $settings.for -}}
{{- end -}}
{{- $_ := set $out "labels" (merge (dict "severity" $settings.severity) $rule.labels) -}}
{{- $links := dict -}}
{{- range $annotation, $base := dict "runbook_url" $root.Values.links.runbooks "dashboard_url" $root.Values.links.grafana -}}
{{- if $base -}}
{{- $_ := set $links $annotation (printf "%s/%s" (trimSuffix "/" $base) (trimPrefix "/" (get $rule.annotations $annotation))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $out "annotations" (merge $links $rule.annotations) -}}
{{- end -}}
{{- end -}}
{{- $rules = append $rules $out -}}
{{- end -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- toJson (dict "groups" $groups) -}}
{{- end -}}
