//! Images, cached by the content that goes into them: an image is built only when its tag, a hash of its inputs, does not exist yet.

use crate::build::{Programs, workspace};
use crate::{cmd, docker, names, output};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Files of the lab's images.
pub fn images_dir() -> PathBuf {
    workspace().join("tests/lab/images")
}

/// Files of the client packages.
pub fn packages_dir() -> PathBuf {
    workspace().join("tests/lab/packages")
}

/// A hash over directories and files: names and contents, in order.
pub fn content_hash(paths: &[&Path], extra: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for text in extra {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    for path in paths {
        add(&mut hash, path, path)?;
    }
    Ok(hex::encode(hash.finalize())[..16].to_owned())
}

fn add(hash: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = fs_err::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| add(hash, root, entry));
    }
    let name = path.strip_prefix(root).unwrap_or(path);
    hash.update(name.as_os_str().as_encoded_bytes());
    hash.update(fs_err::read(path)?);
    Ok(())
}

/// Whether an image is there.
pub fn exists(image: &str) -> Result<bool> {
    Ok(docker::inspect("image", image)?.is_some())
}

/// Builds `fleetlab/<name>:<hash>` unless it is there. The context is the contents of `directory` and, beside them, `others`.
pub fn build(name: &str, directory: &Path, others: &[&Path], args: &[(&str, &str)]) -> Result<String> {
    let mut parts = vec![directory.join(".")];
    parts.extend(others.iter().map(|path| path.to_path_buf()));
    assemble(name, &parts, "Dockerfile", args)
}

fn assemble(name: &str, parts: &[PathBuf], dockerfile: &str, args: &[(&str, &str)]) -> Result<String> {
    let extra: Vec<String> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let inputs: Vec<&Path> = parts.iter().map(PathBuf::as_path).collect();
    let hash = content_hash(&inputs, &extra.iter().map(String::as_str).collect::<Vec<_>>())?;
    let image = format!("{}{name}:{hash}", names::IMAGES);
    let _lock = crate::lock::hold(&format!("image-{name}"))?;
    if exists(&image)? {
        return Ok(image);
    }
    output::step(&format!("building image {image}"));
    let staging = crate::build::state_dir()?.join("context").join(name);
    if staging.exists() {
        fs_err::remove_dir_all(&staging)?;
    }
    fs_err::create_dir_all(&staging)?;
    for part in parts {
        // `directory/.` means the contents of the directory.
        cmd::must(
            "cp",
            ["-a", &part.display().to_string(), &staging.display().to_string()],
        )?;
    }
    let file = staging.join(dockerfile).display().to_string();
    let mut argv: Vec<String> = [
        "DOCKER_BUILDKIT=0",
        "docker",
        "build",
        "--network",
        "host",
        "--tag",
        &image,
        "--file",
        &file,
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    for pair in &extra {
        argv.extend(["--build-arg".to_owned(), pair.clone()]);
    }
    argv.push(staging.display().to_string());
    cmd::must("env", &argv).with_context(|| format!("building {image}"))?;
    fs_err::remove_dir_all(&staging)?;
    Ok(image)
}

/// What the base image is made of. Debian's mirror may give newer packages of the same release to whoever makes it later.
const BOOTSTRAP: [&str; 3] = [
    "--variant=minbase",
    "--include=systemd,systemd-sysv,dbus,ca-certificates",
    "bookworm",
];

fn base_tag() -> String {
    format!(
        "{}base:{}",
        names::IMAGES,
        &text_hash(&BOOTSTRAP.join("\n"))[..16]
    )
}

/// The base image of everything: a minimal Debian with systemd.
pub fn base() -> Result<String> {
    let image = base_tag();
    let _lock = crate::lock::hold("image-base")?;
    if exists(&image)? {
        return Ok(image);
    }
    require_debootstrap()?;
    output::step("making the base image with debootstrap (once, about a minute)");
    let root = crate::build::state_dir()?.join("rootfs");
    if root.exists() {
        fs_err::remove_dir_all(&root)?;
    }
    let target = root.display().to_string();
    let arguments = BOOTSTRAP.into_iter().chain([target.as_str()]);
    cmd::must("debootstrap", arguments)?;
    let archive = root.with_extension("tar");
    cmd::must(
        "tar",
        [
            "-C",
            &root.display().to_string(),
            "-cf",
            &archive.display().to_string(),
            ".",
        ],
    )?;
    docker::docker(["import", &archive.display().to_string(), &image])?;
    fs_err::remove_dir_all(&root)?;
    fs_err::remove_file(&archive)?;
    Ok(image)
}

fn require_debootstrap() -> Result<()> {
    if cmd::run("debootstrap", ["--version"], None).is_ok_and(|done| done.ok()) {
        return Ok(());
    }
    output::step("installing debootstrap");
    let installed = cmd::must("apt-get", ["update", "-qq"]).and_then(|_| {
        cmd::must(
            "apt-get",
            ["install", "-y", "-qq", "--no-install-recommends", "debootstrap"],
        )
    });
    if let Err(error) = installed {
        bail!(
            "the lab makes its base image with debootstrap, which could not be installed: {error:#}. Install debootstrap and run again"
        );
    }
    Ok(())
}

/// The server images of all releases, pushed to the lab's registry.
pub const SERVER_RELEASES: [&str; 5] = ["2.41.2", "2.44.1", "3.2.0", "3.7.1", "3.9.1"];

/// Everything `up` needs.
pub struct Images {
    /// Builder of packages.
    pub builder: String,
    /// Registry.
    pub registry: String,
    /// Repository web server.
    pub repo: String,
}

/// Builds the images that are not hosts or servers.
pub fn tools(_: &Programs) -> Result<Images> {
    let base = base()?;
    let build_one = |name: &str| build(name, &images_dir().join(name), &[], &[("BASE", &base)]);
    Ok(Images {
        builder: build_one("builder")?,
        registry: build_one("registry")?,
        repo: build_one("repo")?,
    })
}

/// SHA-256 over a text.
pub fn text_hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Images of the hosts.
pub struct HostImages {
    deb: String,
    rpm: String,
    tar: String,
}

impl HostImages {
    /// The image for a kind of host.
    pub fn of(&self, kind: crate::fleet::Kind) -> &str {
        match kind.image() {
            "host-deb" => &self.deb,
            "host-rpm" => &self.rpm,
            _ => &self.tar,
        }
    }
}

/// Builds the images of the hosts; their context also holds `host-common`.
pub fn hosts() -> Result<HostImages> {
    let base = base()?;
    let one = |name: &str| {
        let parts = [images_dir().join(name), images_dir().join("host-common")];
        assemble(name, &parts, &format!("{name}/Dockerfile"), &[("BASE", &base)])
    };
    Ok(HostImages {
        deb: one("host-deb")?,
        rpm: one("host-rpm")?,
        tar: one("host-tar")?,
    })
}

/// Builds the PMM Server images, in the order of [`SERVER_RELEASES`].
pub fn servers(programs: &Programs) -> Result<Vec<String>> {
    let root = images_dir().join("pmm-server");
    let base = base()?;
    let shared = build("pmm-server-base", &root.join("base"), &[], &[("BASE", &base)])?;
    SERVER_RELEASES
        .iter()
        .map(|release| {
            let directory = root.join(if release.starts_with("2.") { "v2" } else { "v3" });
            let gid = if *release == "3.2.0" { "1000" } else { "0" };
            let mut args = vec![("BASE", shared.as_str()), ("VERSION", *release)];
            if !release.starts_with("2.") {
                args.push(("GID", gid));
            }
            build(
                &format!("pmm-server-{release}"),
                &directory,
                &[&programs.standin_server],
                &args,
            )
        })
        .collect()
}

/// Starts the registry and pushes the PMM Server images of all releases.
pub fn start_registry(tools: &Images, programs: &Programs) -> Result<()> {
    let port = format!("127.0.0.1:{}:5000", names::REGISTRY_PORT);
    docker::docker([
        "run",
        "--detach",
        "--name",
        names::REGISTRY,
        "--publish",
        &port,
        &tools.registry,
    ])?;
    let built = servers(programs)?;
    crate::wait::until("the registry", 30, || {
        let reachable = std::net::TcpStream::connect(("127.0.0.1", names::REGISTRY_PORT)).is_ok();
        crate::wait::check(reachable, "connection refused")
    })?;
    for (release, image) in SERVER_RELEASES.iter().zip(built) {
        let reference = format!("{}:{release}", names::image_repository());
        docker::docker(["tag", &image, &reference])?;
        docker::docker(["push", "--quiet", &reference])?;
        // Only the oldest is on the machine before the migration; the coordinator has to pull the others.
        if *release != SERVER_RELEASES[0] {
            docker::docker(["rmi", &reference])?;
        }
    }
    Ok(())
}

/// Removes every image the lab built or pushed.
pub fn remove_all() -> Result<()> {
    let listed = docker::docker(["images", "--format", "{{.Repository}}:{{.Tag}}@{{.ID}}"])?;
    for row in listed.lines() {
        let ours = row.starts_with(names::IMAGES) || row.starts_with(&names::image_repository());
        // An image that was pulled by digest has no tag; another row may have removed it already.
        if let (true, Some((name, id))) = (ours, row.rsplit_once('@')) {
            let target = if name.ends_with(":<none>") { id } else { name };
            docker::attempt(&["rmi", "--force", target])?;
        }
    }
    Ok(())
}
