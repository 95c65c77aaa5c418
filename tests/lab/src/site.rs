//! The package site: client packages of both majors, signed repositories, download tree; built once per content.

use crate::build::{self, Programs};
use crate::images::{self, Images};
use crate::{cmd, docker, output};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// A built site.
pub struct Site {
    /// What the web server serves.
    pub www: PathBuf,
    /// PMM 3 tarballs: file name and SHA-256.
    pub tarballs: Vec<(String, String)>,
}

/// Builds the site unless its content is there already.
pub fn build(tools: &Images, programs: &Programs) -> Result<Site> {
    let _lock = crate::lock::hold("site")?;
    let packages = images::packages_dir();
    let hash = images::content_hash(&[&packages, &programs.standin_client], &[&tools.builder])?;
    let out = build::state_dir()?.join("site");
    // Each content has a directory of its own: another lab run may be serving from an older one.
    let www = out.join(format!("www-{hash}"));
    if !www.exists() {
        output::step("building packages, tarballs and repositories");
        let input = build::state_dir()?.join("site-in");
        fs_err::create_dir_all(&input)?;
        fs_err::create_dir_all(&out)?;
        fs_err::copy(&programs.standin_client, input.join("standin-client"))?;
        docker::docker([
            "run",
            "--rm",
            "--volume",
            &format!("{}:/packages:ro", packages.display()),
            "--volume",
            &format!("{}:/in:ro", input.display()),
            "--volume",
            &format!("{}:/out", out.display()),
            &tools.builder,
            "sh",
            "/packages/build.sh",
        ])?;
        cmd::must("chmod", ["-R", "go+rX", &out.join("www").display().to_string()])?;
        fs_err::rename(out.join("www"), &www)?;
    }
    let mut tarballs = Vec::new();
    for release in ["3.2.0", "3.7.1", "3.9.1"] {
        let name = format!("pmm-client-{release}-x86_64.tar.gz");
        let file = www.join(format!(
            "downloads/pmm3/{release}/binary/tarball/{name}.sha256sum"
        ));
        let text = fs_err::read_to_string(&file).context("the digest of a tarball")?;
        let digest = text.split_whitespace().next().unwrap_or_default().to_owned();
        tarballs.push((name, digest));
    }
    Ok(Site { www, tarballs })
}
