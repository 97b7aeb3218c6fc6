#!/usr/bin/env bash
# Tries the sample configuration of Alertmanager: it is valid, every shipped alert reaches the receiver of its severity,
# and text of anybody does no harm in a message. BELLWETHER_BLESS=1 writes the expected messages anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../alerts"

config=alertmanager/alertmanager.yml
die() {
  printf 'alertmanager.sh: %s\n' "$*" >&2
  exit 1
}

amtool check-config "$config" >/dev/null || die "$config is not valid"

# route RECEIVER LABEL…
routes=0
route() {
  local receiver=$1
  shift
  amtool config routes test --config.file="$config" --verify.receivers="$receiver" "$@" >/dev/null 2>&1 ||
    die "an alert with $* does not reach $receiver"
  routes=$((routes + 1))
}

route tickets severity=warning alertname=SomethingElse
route tickets alertname=WithoutASeverity
route pager severity=critical alertname=SomethingElse job=other
route watchdog alertname=BellwetherWatchdog
route watchdog alertname=BellwetherWatchdog severity=critical
while read -r alert severity; do
  case $severity in
    critical) receiver=pager ;;
    warning) receiver=tickets ;;
    info) receiver=nobody ;;
    none) receiver=watchdog ;;
    *) die "$alert has the severity $severity, for which there is no route" ;;
  esac
  route "$receiver" "alertname=$alert" "severity=$severity" job=bellwether instance=sidecar:9600
done < <(awk '/^ *- alert:/ { alert = $3 } /^ *severity:/ { print alert, $2 }' ./*.rules.yml)
((routes > 50)) || die "only $routes routes were tried: the rules were not read"

# render TYPE TEMPLATE…
render() {
  local type=$1 name
  shift
  for name in "$@"; do
    printf '== %s\n' "$name"
    amtool template render --template.glob='alertmanager/templates/*.tmpl' --template.type="$type" \
      --template.data=alertmanager/tests/hostile.json --template.text="{{ template \"bellwether.$name\" . }}"
    printf '\n'
  done
}

rendered=$(
  render text slack.title slack.text color email.subject
  render html email.html
)
expected=alertmanager/tests/hostile.txt
if [[ -n ${BELLWETHER_BLESS:-} ]]; then
  printf '%s\n' "$rendered" >"$expected"
fi
diff "$expected" <(printf '%s\n' "$rendered") || die "messages are not those of $expected"
# Whoever blesses must not bless these.
sections=$(sed '/^== email.subject/,/^== /d' <<<"$rendered")
! grep -qE '<script|<!channel|<https:|href="javascript' <<<"$sections" || die "$expected lets markup through"

echo "$routes routes lead where they should; hostile text stays text"
