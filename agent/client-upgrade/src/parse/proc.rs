//! Files below `/proc/<pid>`.

use crate::facts::Home;

/// Splits `cmdline` or `environ` at its zero bytes.
pub fn zero_separated(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

/// The parent's process id from `stat`: the second field behind the command name, which may itself hold brackets and blanks.
pub fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The value of a flag in an argument vector, as `--name=value` or `--name value`.
pub fn flag(argv: &[String], name: &str) -> Option<String> {
    argv.iter().enumerate().find_map(|(at, argument)| {
        let rest = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))?
            .strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => argv.get(at + 1).cloned(),
            None => None,
        }
    })
}

/// The path of a process in systemd's hierarchy: the unified one where it is used, else the named one of cgroup v1.
pub fn cgroup_path(text: &str) -> &str {
    let path_of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            (controllers == wanted).then_some(path)
        })
    };
    path_of("name=systemd").or_else(|| path_of("")).unwrap_or("/")
}

/// Where a process lives. `init` is the cgroup path of process 1: inside a container every path starts with the container's own, and that
/// does not make the process a container's.
pub fn home(path: &str, init: &str) -> Home {
    let root = init
        .strip_suffix("/init.scope")
        .unwrap_or(if init == "/" { "" } else { init });
    let relative = path.strip_prefix(root).unwrap_or(path);
    if relative.contains("kubepods") {
        return Home::Pod(relative.to_owned());
    }
    if is_container(relative) {
        return Home::Container(relative.to_owned());
    }
    match relative
        .rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
    {
        // A client started from our own service or a login manager's is started by hand all the same.
        Some(unit)
            if unit.ends_with(".service")
                && !unit.starts_with("user@")
                && !unit.starts_with("pmm-upgrade-") =>
        {
            Home::Service(unit.to_owned())
        }
        _ => Home::ByHand,
    }
}

fn is_container(path: &str) -> bool {
    path.split('/').any(|part| {
        let id = part.strip_suffix(".scope").unwrap_or(part);
        let id = ["docker-", "libpod-", "cri-containerd-", "crio-"]
            .iter()
            .find_map(|prefix| id.strip_prefix(prefix))
            .unwrap_or(id);
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }) || path.contains("/lxc/")
        || path.contains("machine.slice/machine-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn flags_in_both_forms() {
        let argv = zero_separated(b"/usr/sbin/pmm-agent\0--config-file=/a b/c.yaml\0");
        assert_eq!(flag(&argv, "config-file").unwrap(), "/a b/c.yaml");
        let argv = zero_separated(b"pmm-agent\0--config-file\0x.yaml\0--debug\0");
        assert_eq!(flag(&argv, "config-file").unwrap(), "x.yaml");
        assert_eq!(flag(&argv, "config"), None);
    }

    #[test]
    fn parents_behind_odd_names() {
        assert_eq!(parent("7 (a) b) (c) S 3 7 7 0 -1"), Some(3));
        assert_eq!(parent("7 (x"), None);
    }

    #[test]
    fn both_cgroup_layouts() {
        assert_eq!(
            cgroup_path("0::/system.slice/pmm-agent.service\n"),
            "/system.slice/pmm-agent.service"
        );
        assert_eq!(
            cgroup_path("12:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            "/system.slice/a.service"
        );
    }

    #[test]
    fn a_host_that_is_a_container_is_still_a_host() {
        let init = format!("/docker/{ID}/init.scope");
        let unit = format!("/docker/{ID}/system.slice/pmm-agent.service");
        assert_eq!(home(&unit, &init), Home::Service("pmm-agent.service".into()));
        assert_eq!(home(&format!("/docker/{ID}"), &init), Home::ByHand);
    }

    #[test]
    fn containers_pods_and_sessions() {
        assert!(matches!(
            home(&format!("/system.slice/docker-{ID}.scope"), "/init.scope"),
            Home::Container(_)
        ));
        assert!(matches!(
            home(&format!("/kubepods/burstable/pod1/{ID}"), "/init.scope"),
            Home::Pod(_)
        ));
        assert_eq!(
            home("/user.slice/user-1500.slice/session-3.scope", "/init.scope"),
            Home::ByHand
        );
        assert_eq!(
            home("/system.slice/pmm-upgrade-client.scope", "/init.scope"),
            Home::ByHand
        );
    }
}
