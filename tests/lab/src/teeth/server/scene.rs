//! One case's own containers, volumes, networks and image tags; removed whatever happens.

use super::pmm::Pmm;
use super::seed::{self, Seed};
use crate::{build, cmd, docker, images, lock, names, output};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Repository of the images that the cases name: the naive commands need real tags.
pub const REPOSITORY: &str = "fleetlab/teeth-pmm-server";

/// Where the guard looks whether to leave everything for a person to look at.
const KEEP: &str = "FLEETLAB_TEETH_KEEP";

/// With this in the environment the images of the last run are used, whatever became of the stand-ins since; for work on the cases.
const AS_THEY_ARE: &str = "FLEETLAB_TEETH_IMAGES_AS_THEY_ARE";

/// Whether the newest release plays an older one, which takes more.
static MUZZLED: AtomicBool = AtomicBool::new(false);

/// What a case made.
pub struct Scene {
    prefix: String,
    tags: Mutex<Vec<String>>,
    directories: Mutex<Vec<PathBuf>>,
}

impl Scene {
    /// An empty scene; what an interrupted run of the same case left is removed.
    pub fn new(case: &str) -> Result<Self> {
        static HELD: OnceLock<Result<fs_err::File, String>> = OnceLock::new();
        let held = HELD.get_or_init(|| lock::hold("teeth-server").map_err(|error| format!("{error:#}")));
        held.as_ref().map_err(|error| anyhow!("{error}"))?;
        let scene = Self {
            prefix: format!("{}teeth-{case}.", names::PREFIX),
            tags: Mutex::default(),
            directories: Mutex::default(),
        };
        scene.clean()?;
        Ok(scene)
    }

    /// A name of the scene's own.
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    /// Names of the scene's containers, running or not.
    pub fn containers(&self) -> Result<Vec<String>> {
        let all = docker::docker(["ps", "-a", "--format", "{{.Names}}"])?;
        Ok(all
            .lines()
            .filter(|name| name.starts_with(&self.prefix))
            .map(str::to_owned)
            .collect())
    }

    /// A new volume with the data of a PMM Server that was used and stopped cleanly.
    pub fn volume(&self, what: &str, seed: &Seed) -> Result<String> {
        let volume = self.empty_volume(what)?;
        seed::unpack(seed, &volume)?;
        Ok(volume)
    }

    /// A new, empty volume.
    pub fn empty_volume(&self, what: &str) -> Result<String> {
        docker::docker(["volume", "create", &self.name(what)])
    }

    /// A new network.
    pub fn network(&self, what: &str) -> Result<String> {
        let name = self.name(what);
        docker::docker(["network", "create", &name])?;
        Ok(name)
    }

    /// A new directory on this machine.
    pub fn directory(&self, what: &str) -> Result<PathBuf> {
        let path = build::state_dir()?.join("teeth").join(self.name(what));
        fs_err::create_dir_all(&path)?;
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path.clone());
        Ok(path)
    }

    /// Another name of a release's image.
    pub fn tag(&self, release: &str, name: &str) -> Result<()> {
        docker::docker(["tag", &image(release)?, name])?;
        self.tags
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.to_owned());
        Ok(())
    }

    /// Creates and starts a PMM Server. `args` go to `docker create`; `switches` make the stand-in slow or broken.
    pub fn start(&self, what: &str, release: &str, args: &[&str], switches: &str) -> Result<Pmm> {
        let (image, disguise) = match release {
            "2.44.0" => (image("2.44.1")?, Some(release)),
            "3.7.0" => (image("3.7.1")?, Some(release)),
            "3.9.1" if MUZZLED.load(Ordering::Relaxed) => (image("3.7.1")?, None),
            other => (image(other)?, None),
        };
        let pmm = self.create(what, &image, args)?;
        if !switches.is_empty() {
            pmm.put("/etc/standin/switches.toml", switches)?;
        }
        if let Some(release) = disguise {
            pmm.put("/usr/share/pmm-server/VERSION", &format!("{release}\n"))?;
            pmm.put("/usr/share/percona-dashboards/VERSION", &format!("{release}\n"))?;
        }
        docker::docker(["start", &pmm.name])?;
        Ok(pmm)
    }

    fn create(&self, what: &str, image: &str, args: &[&str]) -> Result<Pmm> {
        let name = self.name(what);
        let mut argv = vec!["create", "--name", &name];
        argv.extend(args);
        argv.push(image);
        cmd::must("docker", argv)?;
        Ok(Pmm::named(&name))
    }

    fn clean(&self) -> Result<()> {
        let containers = self.containers()?;
        if !containers.is_empty() {
            let head = ["rm", "--force", "--volumes"].map(str::to_owned);
            docker::docker_list(&head.into_iter().chain(containers).collect::<Vec<_>>())?;
        }
        for kind in ["volume", "network"] {
            for name in docker::docker([kind, "ls", "--format", "{{.Name}}"])?.lines() {
                if name.starts_with(&self.prefix) {
                    let removed = docker::attempt(&[kind, "rm", name])?;
                    // Another lab run's `down` may have been faster.
                    if !removed.ok() && docker::inspect(kind, name)?.is_some() {
                        bail!("{kind} {name} can't be removed: {}", removed.all());
                    }
                }
            }
        }
        for tag in self.tags.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            docker::docker(["rmi", &tag])?;
        }
        for path in self
            .directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            fs_err::remove_dir_all(path)?;
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::env::var_os(KEEP).is_some() {
            output::step(&format!("left as it is: {}*", self.prefix));
        } else if let Err(error) = self.clean() {
            output::step(&format!("{}* could not be removed: {error:#}", self.prefix));
        }
    }
}

/// The image of a release, under a name that says the release.
pub fn image(release: &str) -> Result<String> {
    static BUILT: OnceLock<Result<BTreeMap<String, String>, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| tagged().map_err(|error| format!("{error:#}")));
    let known = built
        .as_ref()
        .map_err(|error| anyhow!("building the PMM Server images: {error}"))?;
    known
        .get(release)
        .cloned()
        .with_context(|| format!("there is no image of PMM Server {release}"))
}

fn tagged() -> Result<BTreeMap<String, String>> {
    if std::env::var_os(AS_THEY_ARE).is_some() {
        return Ok(images::SERVER_RELEASES
            .iter()
            .map(|release| ((*release).to_owned(), format!("{REPOSITORY}:{release}")))
            .collect());
    }
    let servers = images::servers(&build::standins()?)?;
    let mut known = BTreeMap::new();
    for (release, built) in images::SERVER_RELEASES.iter().zip(servers) {
        let name = format!("{REPOSITORY}:{release}");
        docker::docker(["tag", &built, &name])?;
        known.insert((*release).to_owned(), name);
    }
    Ok(known)
}

/// Runs a program as root on a volume, mounted at `/srv`, with nothing else running on it.
pub fn on_volume(volume: &str, argv: &[&str]) -> Result<String> {
    let mount = format!("{volume}:/srv");
    let image = image("2.44.1")?;
    let mut args = vec!["run", "--rm", "--user", "0:0", "--volume", &mount, &image];
    args.extend(argv);
    cmd::must("docker", args)
}

/// The change of owners that PMM 3 needs, done right.
pub fn hand_over(volume: &str) -> Result<()> {
    on_volume(volume, &["chown", "-R", "1000:0", "/srv"]).map(drop)
}

/// Fails unless the trap bit.
pub fn bites(bit: bool, trap: impl AsRef<str>) -> Result<()> {
    if bit {
        Ok(())
    } else {
        bail!("nobody fell into the trap: {}", trap.as_ref())
    }
}

/// Runs a case on a stand-in without teeth; the case must fail, because it missed something.
pub fn muzzled(case: fn() -> Result<()>, missed: &str) -> Result<()> {
    MUZZLED.store(true, Ordering::Relaxed);
    let result = case();
    MUZZLED.store(false, Ordering::Relaxed);
    match result {
        Ok(()) => bail!("nobody noticed that the stand-in has lost its teeth"),
        Err(error) if format!("{error:#}").contains(missed) => {
            output::step(&format!("noticed: {error:#}"));
            Ok(())
        }
        Err(error) => Err(error.context("the case failed for another reason")),
    }
}
