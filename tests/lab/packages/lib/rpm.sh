# RPM packages. Sourced by build.sh.

# The default build directory and everything that would touch the programs (strip would cut off the release behind them) are switched off.
rpm_build() { # SPEC DEFINE...
    spec=$1
    shift
    rpmbuild -bb --quiet --nodeps \
        --define "_topdir $WORK/rpmbuild" \
        --define "_unitdir /usr/lib/systemd/system" \
        --define "debug_package %{nil}" \
        --define "__os_install_post %{nil}" \
        --define "_build_id_links none" \
        --define "_binary_payload w1.xzdio" \
        --target x86_64 \
        "$@" "$spec"
}

sign_rpm() { # FILE...
    rpmsign --define "_gpg_name $KEY_NAME" --define "_gpg_path $OUT/keys/gnupg" --define "__gpg /usr/bin/gpg" --addsign "$@" >/dev/null
}

build_client_rpm() { # VERSION BUILD ROOT
    name=pmm-client repo=pmm3-client self=0 fix=1
    case "$1" in
        2.*) name=pmm2-client repo=pmm2-client ;;
        3.0.*|3.1.*|3.2.*) self=1 fix=0 ;;
        3.3.*|3.4.*|3.5.*|3.6.*|3.7.*) self=1 ;;
    esac
    spec=$WORK/$name.spec
    sed -e "/^%{standin_mode}/{r $PACKAGES/lib/standin-mode.sh
d}" "$PACKAGES/rpm/$name.spec" > "$spec"
    rpm_build "$spec" --define "pmm_version $1" --define "pmm_build $2" --define "payload $3" \
        --define "self_conflict $self" --define "user_fix $fix"
    target=$SITE/$repo/yum/release/9/RPMS/x86_64
    install -d "$target"
    mv "$WORK/rpmbuild/RPMS/x86_64/$name-$1-$2.el9.x86_64.rpm" "$target/"
    sign_rpm "$target/$name-$1-$2.el9.x86_64.rpm"
}

build_percona_release_rpm() {
    tree=$WORK/percona-release-rpm
    install -D -m 0755 "$WORK/percona-release" "$tree/usr/bin/percona-release"
    install -D -m 0644 "$OUT/keys/PERCONA-PACKAGING-KEY" "$tree/etc/pki/rpm-gpg/PERCONA-PACKAGING-KEY"
    rpm_build "$PACKAGES/percona-release/percona-release.spec" --define "payload $tree"
    install -d "$SITE/yum"
    mv "$WORK/rpmbuild/RPMS/noarch/percona-release-1.0-32.noarch.rpm" "$SITE/yum/percona-release-latest.noarch.rpm"
    sign_rpm "$SITE/yum/percona-release-latest.noarch.rpm"
}
