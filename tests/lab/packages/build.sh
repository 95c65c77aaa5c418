#!/bin/sh
# Builds every package of the lab and the site that serves them. Runs inside the builder image, see README.md.
#   /packages  this directory      /in  directory with the standin-client program      /out  result
# Result: /out/www (the site), /out/keys (signing key, kept from run to run). /out/www is replaced as a whole.
set -eu
PACKAGES=${PACKAGES:-/packages}
IN=${IN:-/in}
OUT=${OUT:-/out}
# Host name under which the clients see the site.
REPO_HOST=${REPO_HOST:-repo.lab}
CODENAMES="bookworm"
ARCH=$(dpkg --print-architecture)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
umask 022

# Versions, with build numbers that are not the same for all of them, as in the genuine repositories.
CLIENTS="2.41.2:6 2.44.1:6 3.2.0:7 3.7.1:8 3.9.1:1"

. "$PACKAGES/lib/payload.sh"
. "$PACKAGES/lib/deb.sh"
. "$PACKAGES/lib/rpm.sh"
. "$PACKAGES/lib/site.sh"

make_key
SITE=$WORK/www
install -d "$SITE"
for entry in $CLIENTS; do
    version=${entry%:*} build=${entry#*:}
    root=$WORK/root-$version
    stage_installed "$version" "$root"
    for codename in $CODENAMES; do build_client_deb "$version" "$build" "$codename" "$root"; done
    build_client_rpm "$version" "$build" "$root"
    rm -rf "$root"
    build_client_tarball "$version"
done
build_percona_release_deb
build_percona_release_rpm
finish_site

rm -rf "$OUT/www.new"
mv "$SITE" "$OUT/www.new"
rm -rf "$OUT/www"
mv "$OUT/www.new" "$OUT/www"
echo "built: $OUT/www"
