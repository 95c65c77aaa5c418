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
    let first = sync::run(&srv, &data, &manifest, false).unwrap();
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
    let second = sync::run(&srv, &data, &manifest, false).unwrap();
    assert_eq!((second.copied_files, second.removed), (3, 3));
    let report = compare::run(&srv, &data).unwrap();
    assert_eq!(report.differences, 0, "{:?}", report.first);

    let third = sync::run(&srv, &data, &manifest, false).unwrap();
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
    sync::run(&srv, &data, &manifest, true).unwrap();
    let second = sync::run(&srv, &data, &manifest, false).unwrap();
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
    sync::run(&srv, &data, &manifest, false).unwrap();
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
    sync::run(&srv, &data, &manifest, false).unwrap();
    if root() {
        let record = dir.path().join("owners");
        let done = own::run(&srv, 1000, 0, &record).unwrap();
        assert!(done.changed > 0);
        assert_eq!(own::run(&srv, 1000, 0, &record).unwrap().changed, 0);
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
    assert_eq!(look::run(&srv, None, false).unwrap().encryption_key, Some(1));

    let back = restore::run(&data, &srv).unwrap();
    assert_eq!(back.removed, 2);
    let report = compare::run(&data, &srv).unwrap();
    assert_eq!(report.differences, 0, "{:?}", report.first);
    let seen = look::run(&srv, None, true).unwrap();
    assert_eq!(seen.dashboards_version.as_deref(), Some("2.44.1"));
    assert_eq!((seen.files, seen.empty, seen.encryption_key), (5, false, None));
    assert_eq!(restore::run(&data, &srv).unwrap().copied_files, 0);
}
