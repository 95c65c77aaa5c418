//! The `docker` command line, as argument vectors.

use crate::cmd::{self, Done};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Runs `docker ARGS`, which must succeed.
pub fn docker<const N: usize>(args: [&str; N]) -> Result<String> {
    cmd::must("docker", args)
}

/// Runs `docker ARGS` with a list made at run time, which must succeed.
pub fn docker_list(args: &[String]) -> Result<String> {
    cmd::must("docker", args)
}

/// Runs `docker ARGS` and returns whatever happened.
pub fn attempt(args: &[&str]) -> Result<Done> {
    cmd::run("docker", args, None)
}

/// Runs a program in a container and returns whatever happened.
pub fn exec(container: &str, argv: &[&str]) -> Result<Done> {
    let mut args = vec!["exec", container];
    args.extend(argv);
    cmd::run("docker", args, None)
}

/// Runs a program in a container as a user, with an environment and standard input.
pub fn exec_as(
    container: &str,
    user: &str,
    env: &[&str],
    argv: &[&str],
    stdin: Option<&[u8]>,
) -> Result<Done> {
    let mut args = vec!["exec", "-i", "--user", user];
    for pair in env {
        args.extend(["--env", pair]);
    }
    args.push(container);
    args.extend(argv);
    cmd::run("docker", args, Some(stdin.unwrap_or_default()))
}

/// Runs a program in a container, which must succeed.
pub fn exec_must(container: &str, argv: &[&str]) -> Result<String> {
    let done = exec(container, argv)?;
    if !done.ok() {
        bail!(
            "in {container}: `{}` ended with {}:\n{}",
            argv.join(" "),
            done.code,
            cmd::tail(&done.all(), 40)
        );
    }
    Ok(done.stdout.trim_end().to_owned())
}

/// Writes a file in a running container.
pub fn write_file(container: &str, path: &str, mode: &str, bytes: &[u8]) -> Result<()> {
    let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
    exec_must(container, &["mkdir", "-p", directory])?;
    let done = exec_as(
        container,
        "0",
        &[],
        &["dd", "status=none", &format!("of={path}")],
        Some(bytes),
    )?;
    if !done.ok() {
        bail!("can't write {path} in {container}: {}", done.all());
    }
    exec_must(container, &["chmod", mode, path]).map(drop)
}

/// `docker inspect` of one object of a type; `None` when there is none.
pub fn inspect(kind: &str, name: &str) -> Result<Option<Value>> {
    let done = attempt(&["inspect", "--type", kind, name])?;
    if !done.ok() {
        return Ok(None);
    }
    let list: Vec<Value> =
        serde_json::from_str(&done.stdout).context("docker inspect printed no JSON list")?;
    Ok(list.into_iter().next())
}

/// Names of all containers with the prefix, running or not.
pub fn containers(prefix: &str) -> Result<Vec<String>> {
    let filter = format!("name=^/{prefix}");
    Ok(
        docker(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"])?
            .lines()
            .map(str::to_owned)
            .collect(),
    )
}
