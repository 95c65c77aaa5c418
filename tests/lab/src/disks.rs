//! A host with small disks of its own, which a scenario fills and frees.

use crate::fleet::Host;
use crate::{docker, names, output};
use anyhow::{Result, ensure};

/// What the client and our agent write to; each is a file system of its own.
const PLACES: [(&str, &str); 2] = [
    ("client", "/usr/local/percona"),
    ("agent", "/var/lib/pmm-upgrade-agent"),
];
/// A little more than the product's survey asks for.
const SIZE: &str = "400m";
const BALLAST: &str = "ballast";

/// Arguments of `docker run` for a host with small disks.
pub fn small(host: &str) -> Result<Vec<String>> {
    let mut args = Vec::new();
    for (what, place) in PLACES {
        let volume = format!("{}{host}-{what}-disk", names::PREFIX);
        let options = format!("o=size={SIZE},mode=755");
        docker::docker([
            "volume",
            "create",
            "--driver",
            "local",
            "--opt",
            "type=tmpfs",
            "--opt",
            "device=tmpfs",
            "--opt",
            &options,
            &volume,
        ])?;
        args.extend(["--volume".to_owned(), format!("{volume}:{place}")]);
    }
    Ok(args)
}

/// Fills the disks to the last byte.
pub fn fill(host: &Host) -> Result<()> {
    let container = names::host(host.name);
    for (_, place) in PLACES {
        let target = format!("of={place}/{BALLAST}");
        // It ends with an error when nothing is left, which is what it is for.
        docker::exec(&container, &["dd", "if=/dev/zero", "bs=1M", &target])?;
        docker::exec(
            &container,
            &[
                "dd",
                "if=/dev/zero",
                "bs=1",
                "oflag=append",
                "conv=notrunc",
                &target,
            ],
        )?;
        let free = docker::exec_must(&container, &["df", "--output=avail", "-B1", place])?;
        let free: u64 = free.lines().last().unwrap_or_default().trim().parse()?;
        // The agent may have removed a note of its own meanwhile; a program does not fit any more.
        ensure!(free < 65_536, "{}: {place} still has {free} bytes", host.name);
    }
    output::step(&format!("the disks of {} are full", host.name));
    Ok(())
}

/// Makes room again.
pub fn free(host: &Host) -> Result<()> {
    for (_, place) in PLACES {
        docker::exec_must(
            &names::host(host.name),
            &["rm", "-f", &format!("{place}/{BALLAST}")],
        )?;
    }
    output::step(&format!("the disks of {} have room again", host.name));
    Ok(())
}

/// Whether the package manager could not unpack the new client for want of space, by its own logs. What it printed may itself not have found
/// room.
pub fn ran_out(host: &Host) -> Result<bool> {
    let script = "{ journalctl -q --no-pager -o cat; cat /var/log/apt/term.log; } 2>/dev/null | grep -qi 'no space left on device' && exit 0
grep -q ' install pmm-client:' /var/log/dpkg.log && ! grep -q ' status unpacked pmm-client:' /var/log/dpkg.log";
    Ok(docker::exec(&names::host(host.name), &["sh", "-c", script])?.ok())
}
