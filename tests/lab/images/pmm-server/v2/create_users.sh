#!/bin/sh
# The users of PMM 2 with the ids that they have in the genuine image; the data on /srv belong to them.
set -eu
# Debian gives the group id of postgres to tape drives.
groupdel tape 2>/dev/null || true
add() {
    groupadd --gid "$2" "$1"
    useradd --uid "$2" --gid "$2" --home-dir "$3" --no-create-home --shell /bin/false "$1"
}
add clickhouse 997 /var/lib/clickhouse
add grafana 998 /usr/share/grafana
add nginx 999 /var/cache/nginx
add pmm 1000 /home/pmm
add pmm-agent 1001 /usr/local/percona/pmm2
add postgres 26 /var/lib/pgsql
