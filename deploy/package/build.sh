#!/bin/sh
# Makes our agent's deb, rpm and tarball from a finished program. Needs dpkg-deb and rpmbuild.
#   /in/pmm-upgrade-agent   the program      /deploy   this tree      /out   where the packages go
set -eu
IN=${IN:-/in}
DEPLOY=${DEPLOY:-/deploy}
OUT=${OUT:-/out}
VERSION=${VERSION:-0.1.0}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
umask 022

stage() { # ROOT
    install -D -m 0755 "$IN/pmm-upgrade-agent" "$1/usr/bin/pmm-upgrade-agent"
    install -D -m 0644 "$DEPLOY/agent/usr/lib/systemd/system/pmm-upgrade-agent.service" "$1/usr/lib/systemd/system/pmm-upgrade-agent.service"
    install -D -m 0644 "$DEPLOY/agent/etc/pmm-upgrade-agent/policy.toml" "$1/etc/pmm-upgrade-agent/policy.toml"
}

# deb
stage "$WORK/deb"
install -d "$WORK/deb/DEBIAN"
size=$(du -sk "$WORK/deb" | cut -f1)
sed -e "s/@VERSION@/$VERSION/" -e "s/@SIZE@/$size/" "$DEPLOY/package/deb/control" > "$WORK/deb/DEBIAN/control"
for script in postinst prerm postrm; do install -m 0755 "$DEPLOY/package/deb/$script" "$WORK/deb/DEBIAN/$script"; done
echo /etc/pmm-upgrade-agent/policy.toml > "$WORK/deb/DEBIAN/conffiles"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$WORK/deb" "$OUT/pmm-upgrade-agent_${VERSION}_amd64.deb" >/dev/null

# rpm
stage "$WORK/rpmroot"
rpmbuild -bb --quiet --define "_topdir $WORK/rpmbuild" --define "_rpmdir $OUT" --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
    --define "agent_version $VERSION" --define "agent_root $WORK/rpmroot" --define "_binary_payload w1.gzdio" "$DEPLOY/package/rpm/pmm-upgrade-agent.spec"

# tarball: unpacked at the root, for hosts without a package manager that we know
stage "$WORK/tar"
tar -C "$WORK/tar" --owner=root --group=root -I 'gzip -1' -cf "$OUT/pmm-upgrade-agent-$VERSION-x86_64.tar.gz" usr etc
