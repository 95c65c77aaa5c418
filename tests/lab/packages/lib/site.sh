# Signing key, tarballs and the indexes of the repositories. Sourced by build.sh.
KEY_NAME="PMM lab packaging key <packaging@repo.lab>"

make_key() {
    install -d -m 0700 "$OUT/keys/gnupg"
    export GNUPGHOME=$OUT/keys/gnupg
    if ! gpg --batch --quiet --list-secret-keys "$KEY_NAME" >/dev/null 2>&1; then
        gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-generate-key "$KEY_NAME" rsa3072 sign never
    fi
    gpg --batch --quiet --yes --output "$OUT/keys/percona-keyring.gpg" --export "$KEY_NAME"
    gpg --batch --quiet --yes --armor --output "$OUT/keys/PERCONA-PACKAGING-KEY" --export "$KEY_NAME"
    sed "s/@REPO_HOST@/$REPO_HOST/" "$PACKAGES/percona-release/percona-release" > "$WORK/percona-release"
}

build_client_tarball() { # VERSION
    name=pmm-client tree=pmm3
    case "$1" in 2.*) name=pmm2-client tree=pmm2 ;; esac
    stage_tarball "$1" "$WORK/tar/$name-$1"
    target=$SITE/downloads/$tree/$1/binary/tarball
    install -d "$target"
    tar -C "$WORK/tar" --owner=root --group=root --numeric-owner -I 'gzip -1' -cf "$target/$name-$1-x86_64.tar.gz" "$name-$1"
    (cd "$target" && sha256sum "$name-$1-x86_64.tar.gz" > "$name-$1-x86_64.tar.gz.sha256sum")
    rm -rf "$WORK/tar"
}

index_apt() { # DIRECTORY CODENAME...
    archive=$1
    shift
    for codename in "$@"; do
        for component in main testing experimental; do
            install -d "$archive/dists/$codename/$component/binary-$ARCH" "$archive/dists/$codename/$component/source" "$archive/pool/$component"
            (
                cd "$archive"
                apt-ftparchive packages "pool/$component" > "dists/$codename/$component/binary-$ARCH/Packages"
                gzip -kf9 "dists/$codename/$component/binary-$ARCH/Packages"
                : > "dists/$codename/$component/source/Sources"
                gzip -kf9 "dists/$codename/$component/source/Sources"
            )
        done
        (
            cd "$archive/dists/$codename"
            apt-ftparchive -o APT::FTPArchive::Release::Codename="$codename" -o APT::FTPArchive::Release::Suite="$codename" \
                -o APT::FTPArchive::Release::Components="main testing experimental" -o APT::FTPArchive::Release::Architectures="$ARCH source" \
                -o APT::FTPArchive::Release::Origin="Percona Development Team" -o APT::FTPArchive::Release::Label="percona" \
                release . > "$WORK/Release"
            mv "$WORK/Release" Release
            gpg --batch --yes --quiet --local-user "$KEY_NAME" --clearsign --output InRelease Release
            gpg --batch --yes --quiet --local-user "$KEY_NAME" --armor --detach-sign --output Release.gpg Release
        )
    done
}

finish_site() {
    for repo in pmm2-client pmm3-client prel telemetry; do
        # Support of systems shrank: what PMM 2 was built for, PMM 3 is not. Only the indexes tell; nothing is installed from these.
        older_apt= older_yum=
        if [ "$repo" != pmm3-client ]; then older_apt="buster bionic focal" older_yum=7; fi
        index_apt "$SITE/$repo/apt" $CODENAMES $older_apt
        for component in release testing experimental; do
            for release in 9 $older_yum; do
                for arch in RPMS/x86_64 RPMS/noarch SRPMS; do
                    install -d "$SITE/$repo/yum/$component/$release/$arch"
                    createrepo_c --quiet --simple-md-filenames "$SITE/$repo/yum/$component/$release/$arch"
                done
            done
        done
    done
    install -m 0644 "$OUT/keys/percona-keyring.gpg" "$SITE/percona-keyring.gpg"
    install -m 0644 "$OUT/keys/PERCONA-PACKAGING-KEY" "$SITE/PERCONA-PACKAGING-KEY"
}
