# Debian packages. Sourced by build.sh.

# Fills @NAMES@ of a control file.
fill() { # FILE VERSION BUILD CODENAME
    sed -e "s/@VERSION@/$2/" -e "s/@BUILD@/$3/" -e "s/@CODENAME@/$4/" -e "s/@ARCH@/$ARCH/" "$1"
}

# Replaces the marker lines of a maintainer script by the parts that several scripts share.
assemble() { # SCRIPT TARGET
    sed -e "/^#SERVICE-START#/{r $PACKAGES/deb/service-start.sh
d}" -e "/^#STANDIN-MODE#/{r $PACKAGES/lib/standin-mode.sh
d}" "$1" > "$2"
    chmod 0755 "$2"
}

build_client_deb() { # VERSION BUILD CODENAME ROOT
    major=$(major_of "$1")
    name=pmm-client repo=pmm3-client
    if [ "$major" = v2 ]; then name=pmm2-client repo=pmm2-client; fi
    tree=$WORK/deb
    rm -rf "$tree"
    cp -al "$4" "$tree"
    # The links are the package's own here; the rpm makes them in a script.
    install -d "$tree/usr/bin" "$tree/usr/sbin" "$tree/DEBIAN"
    for program in pmm-admin pmm-agent; do
        ln -s "/$(base_of "$1")/bin/$program" "$tree/usr/bin/$program"
        ln -s "/$(base_of "$1")/bin/$program" "$tree/usr/sbin/$program"
    done
    install -d "$tree/lib/systemd"
    mv "$tree/usr/lib/systemd/system" "$tree/lib/systemd/system"
    rmdir "$tree/usr/lib/systemd" "$tree/usr/lib"
    # The entrypoint comes with the rpm only.
    rm -f "$tree/$(base_of "$1")/bin/pmm-agent-entrypoint"
    size=$(du -sk "$tree" | cut -f1)
    fill "$PACKAGES/deb/$major/control" "$1" "$2" "$3" | sed "s/@SIZE@/$size/" > "$tree/DEBIAN/control"
    assemble "$PACKAGES/deb/preinst" "$tree/DEBIAN/preinst"
    assemble "$PACKAGES/deb/prerm" "$tree/DEBIAN/prerm"
    assemble "$PACKAGES/deb/$major/postinst" "$tree/DEBIAN/postinst"
    assemble "$PACKAGES/deb/$major/postrm" "$tree/DEBIAN/postrm"
    pool=$SITE/$repo/apt/pool/main/p/$name
    install -d "$pool"
    dpkg-deb --root-owner-group -Zxz -z1 --build "$tree" "$pool/${name}_$1-$2.$3_$ARCH.deb" >/dev/null
    rm -rf "$tree"
}

build_percona_release_deb() {
    tree=$WORK/percona-release-deb
    install -D -m 0755 "$WORK/percona-release" "$tree/usr/bin/percona-release"
    install -D -m 0644 "$OUT/keys/percona-keyring.gpg" "$tree/usr/share/keyrings/percona-keyring.gpg"
    install -d "$tree/DEBIAN"
    fill "$PACKAGES/percona-release/control" 1.0 32 generic > "$tree/DEBIAN/control"
    assemble "$PACKAGES/percona-release/postinst" "$tree/DEBIAN/postinst"
    install -d "$SITE/apt"
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$SITE/apt/percona-release_latest.generic_all.deb" >/dev/null
}
