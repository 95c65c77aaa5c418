//! The commands against real trees. Owner changes need root; without it those parts are left out.
#![allow(clippy::unwrap_used)]

use crate::{compare, look, own, restore, sync};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn tree(root: &Path) {
    fs::create_dir_all(root.join("postgres14/base")).unwrap();
    fs::create_dir_all(root.join("grafana")).unwrap();
    fs::write(root.join("pmm-distribution"), "docker").unwrap();
    fs::write(root.join("grafana/PERCONA_DASHBOARDS_VERSION"), "2.44.1\n").unwrap();
    fs::write(root.join("postgres14/base/1"), vec![7u8; 3 << 20]).unwrap();
    fs::write(root.join("postgres14/base/holes"), vec![0u8; 2 << 20]).unwrap();
    fs::hard_link(
        root.join("postgres14/base/1"),
        root.join("postgres14/base/1-part"),
    )
    .unwrap();
    symlink("base/1", root.join("postgres14/link")).unwrap();
    fs::set_permissions(root.join("postgres14"), fs::Permissions::from_mode(0o750)).unwrap();
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_second_pass_copies_only_what_changed_and_the_copy_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (srv, data, manifest) = (
        dir.path().join("srv"),
        dir.path().join("data"),
        dir.path().join("manifest"),
    );
    tree(&srv);
    // Old enough not to be racy.
    let first = sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    assert_eq!(
        (first.files, first.copied_files),
        (5, 4),
        "the second name of a file is a link"
    );
    assert_eq!(compare::run(&srv, &data).unwrap().differences, 0);

    fs::write(srv.join("grafana/new"), "x").unwrap();
    fs::write(srv.join("pmm-distribution"), "DOCKER").unwrap();
    fs::remove_file(srv.join("postgres14/base/holes")).unwrap();
    fs::remove_dir_all(srv.join("postgres14/base")).unwrap();
    fs::write(srv.join("postgres14/base"), "a file now").unwrap();
    let second = sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    assert_eq!((second.copied_files, second.removed), (3, 3));
    let report = compare::run(&srv, &data).unwrap();
    assert_eq!(report.differences, 0, "{:?}", report.first);

    let third = sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    assert_eq!(third.copied_files, 0);
}

#[test]
fn a_file_that_changed_just_before_the_live_pass_is_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    let (srv, data, manifest) = (
        dir.path().join("srv"),
        dir.path().join("data"),
        dir.path().join("manifest"),
    );
    tree(&srv);
    sync::run(&srv, &data, &manifest, true, &[]).unwrap();
    let second = sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    assert_eq!(second.copied_files, 4, "all files are younger than the margin");
}

#[test]
fn a_copy_without_manifest_was_never_finished_and_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (srv, data, manifest) = (
        dir.path().join("srv"),
        dir.path().join("data"),
        dir.path().join("manifest"),
    );
    tree(&srv);
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("half"), "x").unwrap();
    sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    assert_eq!(compare::run(&srv, &data).unwrap().differences, 0);
}

#[test]
fn a_restore_brings_back_contents_owners_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let (srv, data, manifest) = (
        dir.path().join("srv"),
        dir.path().join("data"),
        dir.path().join("manifest"),
    );
    tree(&srv);
    sync::run(&srv, &data, &manifest, false, &[]).unwrap();
    if root() {
        let record = dir.path().join("owners");
        let done = own::run(&srv, 1000, 0, &record, &[]).unwrap();
        assert!(done.changed > 0);
        assert_eq!(own::run(&srv, 1000, 0, &record, &[]).unwrap().changed, 0);
        assert!(
            fs::read_to_string(&record)
                .unwrap()
                .lines()
                .any(|line| line == "0 0 /pmm-distribution")
        );
        assert_eq!(fs::metadata(srv.join("postgres14/base/1")).unwrap().uid(), 1000);
    }
    fs::write(srv.join("grafana/PERCONA_DASHBOARDS_VERSION"), "3.7.1\n").unwrap();
    fs::write(srv.join("pmm-encryption.key"), "k").unwrap();
    fs::remove_file(srv.join("postgres14/base/1")).unwrap();
    fs::create_dir_all(srv.join("nomad/data")).unwrap();
    assert_eq!(
        look::run(&srv, None, false, &[], None).unwrap().encryption_key,
        Some(1)
    );

    let back = restore::run(&data, &srv, &[]).unwrap();
    assert_eq!(back.removed, 2);
    let report = compare::run(&data, &srv).unwrap();
    assert_eq!(report.differences, 0, "{:?}", report.first);
    let seen = look::run(&srv, None, true, &[], None).unwrap();
    assert_eq!(seen.dashboards_version.as_deref(), Some("2.44.1"));
    assert_eq!((seen.files, seen.empty, seen.encryption_key), (5, false, None));
    assert_eq!(restore::run(&data, &srv, &[]).unwrap().copied_files, 0);
}

/// Set for the part of the test below that runs in a mount namespace of its own.
const MOUNTED: &str = "VOLUME_HELPER_TEST_MOUNTS";

#[test]
fn read_only_mounts_are_left_alone_and_everything_else_is_done() {
    if std::env::var_os(MOUNTED).is_some() {
        return beside_read_only_mounts();
    }
    assert!(
        root(),
        "mounting needs root: run the tests as root, for example in a container with --privileged"
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "tests::read_only_mounts_are_left_alone_and_everything_else_is_done",
        ])
        .env(MOUNTED, "1")
        .output()
        .expect("`unshare` is missing: install util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "no mount namespace, or the test in it failed (CAP_SYS_ADMIN is needed: run as root): {text}"
    );
}

fn mount(args: &[&str], paths: &[&Path]) {
    let done = std::process::Command::new("mount")
        .args(args)
        .args(paths)
        .status();
    assert!(
        done.expect("`mount` is missing: install util-linux").success(),
        "mount {args:?} {paths:?}"
    );
}

fn bind_read_only(source: &Path, target: &Path) {
    mount(&["--bind"], &[source, target]);
    mount(&["-o", "remount,bind,ro"], &[target]);
}

fn beside_read_only_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (srv, data, manifest, record) = (at("srv"), at("data"), at("manifest"), at("owners"));
    tree(&srv);
    fs::create_dir_all(srv.join("nginx")).unwrap();
    fs::create_dir_all(srv.join("prometheus")).unwrap();
    fs::write(srv.join("prometheus/prometheus.base.yml"), "").unwrap();
    fs::create_dir_all(at("certs")).unwrap();
    fs::write(at("certs/certificate.key"), "secret").unwrap();
    fs::set_permissions(at("certs/certificate.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(at("base.yml"), "scrape_configs: []").unwrap();
    let (certs, base) = (srv.join("nginx"), srv.join("prometheus/prometheus.base.yml"));
    bind_read_only(&at("certs"), &certs);
    bind_read_only(&at("base.yml"), &base);
    let refused = std::os::unix::fs::lchown(certs.join("certificate.key"), Some(1000), Some(0)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    let leave = [certs.clone(), base.clone()];
    sync::run(&srv, &data, &manifest, true, &leave).unwrap();
    let copy = sync::run(&srv, &data, &manifest, false, &leave).unwrap();
    assert_eq!(copy.files, 5);
    assert!(!data.join("nginx").exists() && !data.join("prometheus/prometheus.base.yml").exists());
    let (source, copied) = (copy.source.unwrap(), copy.copy.unwrap());
    assert_eq!((copied.files, copied.bytes), (copy.files, copy.bytes));
    assert_eq!(source.dashboards_version, copied.dashboards_version);

    // The two that write find the mounts by themselves.
    own::run(&srv, 1000, 0, &record, &[]).unwrap();
    assert_eq!(fs::metadata(srv.join("postgres14/base/1")).unwrap().uid(), 1000);
    assert_eq!(fs::metadata(srv.join("prometheus")).unwrap().uid(), 1000);
    let key = || fs::metadata(certs.join("certificate.key")).unwrap();
    assert_eq!(key().uid(), 0);
    fs::write(srv.join("grafana/PERCONA_DASHBOARDS_VERSION"), "3.7.1\n").unwrap();
    fs::write(srv.join("prometheus/new"), "x").unwrap();
    restore::run(&data, &srv, &[]).unwrap();
    assert!(!srv.join("prometheus/new").exists());
    assert_eq!(fs::metadata(srv.join("postgres14/base/1")).unwrap().uid(), 0);
    assert_eq!(
        fs::read_to_string(certs.join("certificate.key")).unwrap(),
        "secret"
    );
    assert_eq!(fs::read_to_string(&base).unwrap(), "scrape_configs: []");
    assert_eq!(restore::run(&data, &srv, &leave).unwrap().removed, 0);

    let seen = look::run(&srv, None, true, &leave, Some((1000, 0))).unwrap();
    assert_eq!(seen.files, 5);
    let unreadable = certs.join("certificate.key").display().to_string();
    assert_eq!((seen.unreadable, seen.unreadable_count), (vec![unreadable], 1));

    // An older copy that has them all the same is brought back around them.
    let (whole, lines) = (at("whole"), at("lines"));
    sync::run(&srv, &whole, &lines, false, &[]).unwrap();
    assert!(whole.join("nginx/certificate.key").exists());
    restore::run(&whole, &srv, &[]).unwrap();
}

#[test]
fn equal_metadata_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::write(&a, "x").unwrap();
    fs::write(&b, "x").unwrap();
    let meta = fs::symlink_metadata(&a).unwrap();
    crate::file::copy_metadata(&a, &meta, &b).unwrap();
    let once = fs::symlink_metadata(&b).unwrap();
    assert_eq!(
        (once.mtime(), once.mtime_nsec()),
        (meta.mtime(), meta.mtime_nsec())
    );
    crate::file::copy_metadata(&a, &meta, &b).unwrap();
    let twice = fs::symlink_metadata(&b).unwrap();
    assert_eq!(
        (once.ctime(), once.ctime_nsec()),
        (twice.ctime(), twice.ctime_nsec())
    );
}
