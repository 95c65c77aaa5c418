# Lays out the files of one client release. Sourced by build.sh.
# Needs: IN (directory with standin-client), PACKAGES (this directory).

# Copies the program under a name and writes the release behind its last byte.
# A running copy keeps playing its release while its file is replaced, as a real one does.
# PROGRAM_COPY, when set, is a copy of the same release that is hard-linked instead of copied: /proc/PID/exe still tells them apart.
place_program() { # VERSION TARGET
    if [ -n "${PROGRAM_COPY:-}" ]; then
        install -d "$(dirname "$2")"
        ln "$PROGRAM_COPY" "$2"
        return
    fi
    install -D -m 0755 "$IN/standin-client" "$2"
    printf '\nSTANDIN-PMM-RELEASE:{"version":"%s","timestamp":"%s","commit":"%s"}\n' \
        "$1" "2026-01-15 10:00:00 (UTC)" "$(printf 'pmm-%s' "$1" | sha1sum | cut -d' ' -f1)" >> "$2"
}

exporters_of() { # VERSION
    echo "node_exporter mysqld_exporter mongodb_exporter postgres_exporter proxysql_exporter rds_exporter azure_exporter vmagent"
    case "$1" in 2.*|3.0.*|3.1.*|3.2.*|3.3.*|3.4.*) ;; *) echo "valkey_exporter" ;; esac
}

tools_of() { # VERSION
    echo "pt-summary pt-mysql-summary pt-mongodb-summary pt-pg-summary"
}

place_tool() { # NAME TARGET
    install -d "$(dirname "$2")"
    printf '#!/bin/sh\n# Stand-in for %s.\nuname -a\n' "$1" > "$2"
    chmod 0755 "$2"
}

base_of() { # VERSION
    case "$1" in 2.*) echo usr/local/percona/pmm2 ;; *) echo usr/local/percona/pmm ;; esac
}

major_of() { case "$1" in 2.*) echo v2 ;; *) echo v3 ;; esac; }

place_collectors() { # TARGET DIRECTORY
    for resolution in low medium high; do
        install -D -m 0644 "$PACKAGES/collectors/example.prom" "$1/textfile-collector/$resolution-resolution/example.prom"
        install -d "$1/custom-queries/mysql/$resolution-resolution" "$1/custom-queries/postgresql/$resolution-resolution"
    done
    for resolution in low medium high; do
        install -m 0644 "$PACKAGES/collectors/queries-mysqld.yml" "$1/custom-queries/mysql/$resolution-resolution/queries-mysqld.yml"
        install -m 0644 "$PACKAGES/collectors/queries-postgres.yml" "$1/custom-queries/postgresql/$resolution-resolution/queries-postgres.yml"
    done
}

# The tree that deb and rpm install.
stage_installed() { # VERSION ROOT
    version=$1 root=$2 base=$2/$(base_of "$1")
    PROGRAM_COPY=
    place_program "$version" "$base/bin/pmm-agent"
    PROGRAM_COPY=$base/bin/pmm-agent
    for program in pmm-admin pmm-agent-entrypoint; do place_program "$version" "$base/bin/$program"; done
    for program in $(exporters_of "$version"); do place_program "$version" "$base/exporters/$program"; done
    for tool in $(tools_of "$version"); do place_tool "$tool" "$base/tools/$tool"; done
    if [ "$(major_of "$version")" = v3 ]; then place_program "$version" "$base/tools/nomad"; fi
    install -d "$base/config"
    place_collectors "$base/collectors"
    install -D -m 0644 "$PACKAGES/units/pmm-agent-$(major_of "$version").service" "$root/usr/lib/systemd/system/pmm-agent.service"
}

# The tree of the tarball.
stage_tarball() { # VERSION TOP
    version=$1 top=$2
    PROGRAM_COPY=
    for program in pmm-admin pmm-agent pmm-agent-entrypoint $(exporters_of "$version"); do place_program "$version" "$top/bin/$program"; done
    for tool in $(tools_of "$version"); do place_tool "$tool" "$top/bin/$tool"; done
    if [ "$(major_of "$version")" = v3 ]; then place_program "$version" "$top/bin/nomad"; fi
    echo "$version" > "$top/VERSION"
    default=/$(base_of "$version")
    sed "s#@DEFAULT_DIR@#$default#" "$PACKAGES/tarball/install_tarball" > "$top/install_tarball"
    chmod 0755 "$top/install_tarball"
    install -D -m 0644 "$PACKAGES/units/pmm-agent-$(major_of "$version").service" "$top/config/pmm-agent.service"
    install -m 0644 "$PACKAGES/collectors/example.prom" "$PACKAGES/collectors/queries-mysqld.yml" "$PACKAGES/collectors/queries-postgres.yml" "$top/"
    install -d "$top/rpm" "$top/debian"
}
