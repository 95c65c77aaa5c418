#!/usr/bin/env bash
# What the vendor's easy-install script (get-pmm.sh) does to a host with a PMM 2 container, retold step by step from its known behaviour,
# with its known mistakes. The suite `teeth` runs it to show that the stand-in PMM Server falls into each of them. Nobody should use it for
# anything else.
#
# Its own variables: PMM_TAG PMM_REPO PMM_PORT CONTAINER_NAME NETWORK_NAME VOLUME_NAME BACKUP=1 WATCHTOWER_TOKEN.
# The lab's: HELPER_IMAGE (alpine), PAUSE (5 s), REVISION=old (the order of steps of the older revision), STOP_AFTER=backup.
set -o errexit -o nounset -o pipefail -o errtrace

tag=${PMM_TAG:-3}
repo=${PMM_REPO:-percona/pmm-server}
port=${PMM_PORT:-443}
name=${CONTAINER_NAME:-pmm-server}
network=${NETWORK_NAME:-pmm-net}
volume=${VOLUME_NAME:-pmm-data}
helper=${HELPER_IMAGE:-alpine}
pause=${PAUSE:-5}
stamp=$(date +%Y-%m-%d-%H%M%S)

# Names that PMM 3 does not know any more.
obsolete="LESS_LOG_NOISE PERCONA_TEST_CHECKS_INTERVAL PERCONA_TEST_NICER_API PERCONA_TEST_PMM_CLICKHOUSE_BLOCK_SIZE
PERCONA_TEST_PMM_CLICKHOUSE_POOL_SIZE PMM_DEV_OAUTH_CLIENT_ID PMM_DEV_OAUTH_CLIENT_SECRET PATH LANG PS1 GF_PLUGIN_DIR"

declare -A renamed=(
    [DATA_RETENTION]=PMM_DATA_RETENTION
    [ENABLE_AZUREDISCOVER]=PMM_ENABLE_AZURE_DISCOVER
    [ENABLE_RBAC]=PMM_ENABLE_ACCESS_CONTROL
    [METRICS_RESOLUTION]=PMM_METRICS_RESOLUTION
    [METRICS_RESOLUTION_HR]=PMM_METRICS_RESOLUTION_HR
    [METRICS_RESOLUTION_MR]=PMM_METRICS_RESOLUTION_MR
    [METRICS_RESOLUTION_LR]=PMM_METRICS_RESOLUTION_LR
    [OAUTH_PMM_CLIENT_ID]=PMM_DEV_OAUTH_CLIENT_ID
    [OAUTH_PMM_CLIENT_SECRET]=PMM_DEV_OAUTH_CLIENT_SECRET
    [PERCONA_TEST_VERSION_SERVICE_URL]=PMM_PERCONA_PLATFORM_ADDRESS
    [PERCONA_TEST_PLATFORM_ADDRESS]=PMM_PERCONA_PLATFORM_ADDRESS
)

# Answers with its exit status only.
is_obsolete() {
    local known
    for known in $obsolete; do
        if [[ $known == "$1" ]]; then return 0; fi
    done
    return 1
}

# Puts the new name and value of a variable into `line`.
translate() {
    local key=$1 value=$2
    case $key in
        DISABLE_UPDATES | DISABLE_TELEMETRY | DISABLE_ALERTING | DISABLE_BACKUP_MANAGEMENT)
            # Mistake: the value is taken for a number.
            line="PMM_ENABLE_${key#DISABLE_}=$((1 - value))"
            ;;
        *) line="${renamed[$key]:-$key}=$value" ;;
    esac
}

# Puts options for `docker run`, as shell text, into `flags`.
collect_flags() {
    local pair key verdict line
    while IFS= read -r pair; do
        if [[ -z $pair ]]; then continue; fi
        key=${pair%%=*}
        # Mistake: this takes what the function prints, which is nothing, and nothing counts as 0.
        verdict=$(is_obsolete "$key") || :
        if [[ $verdict -ne 0 ]]; then continue; fi
        translate "$key" "${pair#*=}"
        flags+=" -e \"$line\""
    done < <(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$1")
}

srv_volume() {
    docker inspect --format '{{range .Mounts}}{{if and (eq .Type "volume") (eq .Destination "/srv")}}{{.Name}}{{end}}{{end}}' "$1"
}

copy_volume() {
    local copy=$1-$stamp
    docker volume create "$copy" > /dev/null
    docker run --rm -v "$1:/from" -v "$copy:/to" "$helper" cp -a /from/. /to
    echo "Backup volume: $copy"
}

docker network inspect "$network" > /dev/null 2>&1 || docker network create "$network" > /dev/null

token=${WATCHTOWER_TOKEN:-}
if [[ -z $token ]]; then
    token="random-$stamp"
    echo "Watchtower token: $token"
fi

docker image inspect "$repo:$tag" > /dev/null 2>&1 || docker pull "$repo:$tag"

flags=""
if docker inspect "$name" > /dev/null 2>&1; then
    docker stop "$name" > /dev/null 2>&1 || :
    if [[ ${REVISION:-new} == new ]]; then volume=$(srv_volume "$name"); fi
    if [[ ${BACKUP:-} == 1 ]]; then copy_volume "$volume"; fi
    volume=$(srv_volume "$name")
    if [[ ${STOP_AFTER:-} == backup ]]; then exit 0; fi

    image=$(docker inspect --format '{{.Config.Image}}' "$name")
    old=${image#*:}
    if [[ $old == 2 || $old == 2.* || $old == dev-latest ]]; then
        echo "Migrating PMM $old"
        collect_flags "$name"
        docker start "$name" > /dev/null
        sleep "$pause"
        docker exec "$name" supervisorctl stop all > /dev/null
        sleep "$pause"
        docker exec "$name" chown -R pmm:pmm /srv
        docker stop "$name" > /dev/null
    else
        echo "No migration from $old"
    fi
    archive="$name-$stamp\n"
    printf 'Old container is kept as %b' "$archive"
    sh -c "docker rename $name $archive"
fi

docker volume create "$volume" > /dev/null
sh -c "docker run -d -p $port:8443 -v $volume:/srv --name $name --network $network$flags \
    -e PMM_WATCHTOWER_HOST=http://watchtower:8080 -e PMM_WATCHTOWER_TOKEN=$token --restart always $repo:$tag" > /dev/null
echo "PMM Server has been installed and started. User: admin, password: admin"
