//! Local accounts. Package scripts of the client delete and re-create theirs, with another uid and without its supplementary groups.

use super::command::{Tool, ToolError};
use fs_err as fs;
use serde::{Deserialize, Serialize};

/// An account as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Name of the primary group.
    pub group: String,
    /// Id of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Shell.
    pub shell: String,
    /// Supplementary groups.
    pub groups: Vec<String>,
}

/// A local account by name.
pub fn find(name: &str) -> Option<Account> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let group = fs::read_to_string("/etc/group").ok()?;
    parse(&passwd, &group, name)
}

fn parse(passwd: &str, group: &str, name: &str) -> Option<Account> {
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)?;
    let [_, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    let gid: u32 = gid.parse().ok()?;
    let groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse().ok()?, members))
        })
        .collect();
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        group: groups
            .iter()
            .find(|(_, id, _)| *id == gid)
            .map_or_else(|| name.to_owned(), |(group, ..)| (*group).to_owned()),
        gid,
        home: home.to_owned(),
        shell: shell.to_owned(),
        groups: groups
            .iter()
            .filter(|(_, id, members)| *id != gid && members.split(',').any(|member| member == name))
            .map(|(group, ..)| (*group).to_owned())
            .collect(),
    })
}

/// Name of a user id, or the number as text.
pub fn name_of(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&wanted.as_str()))
        .map_or(wanted.clone(), |fields| fields[0].to_owned())
}

/// Makes an account what it was. Returns whether anything had to be changed. Nothing may run under the account meanwhile.
pub fn restore(before: &Account) -> Result<bool, ToolError> {
    let now = find(&before.name);
    let mut changed = false;
    match &now {
        None => {
            if !group_exists(&before.group) {
                Tool::new("groupadd")
                    .args(["--system", "--gid", &before.gid.to_string(), &before.group])
                    .check()?;
            }
            let (uid, gid) = (before.uid.to_string(), before.gid.to_string());
            let fixed = ["--system", "--no-create-home", "--uid", &uid, "--gid", &gid];
            Tool::new("useradd")
                .args(fixed)
                .args(["--home-dir", &before.home, "--shell", &before.shell, &before.name])
                .check()?;
            changed = true;
        }
        Some(now) => {
            if now.gid != before.gid && now.group == before.group {
                Tool::new("groupmod")
                    .args(["--gid", &before.gid.to_string(), &before.group])
                    .check()?;
                changed = true;
            }
            if now.uid != before.uid {
                Tool::new("usermod")
                    .args(["--uid", &before.uid.to_string(), &before.name])
                    .check()?;
                changed = true;
            }
        }
    }
    let now = find(&before.name);
    let missing: Vec<&String> = before
        .groups
        .iter()
        .filter(|group| !now.as_ref().is_some_and(|now| now.groups.contains(group)) && group_exists(group))
        .collect();
    if !missing.is_empty() {
        let list = missing
            .iter()
            .map(|group| group.as_str())
            .collect::<Vec<_>>()
            .join(",");
        Tool::new("usermod")
            .args(["--append", "--groups", &list, &before.name])
            .check()?;
        changed = true;
    }
    Ok(changed)
}

fn group_exists(name: &str) -> bool {
    fs::read_to_string("/etc/group")
        .is_ok_and(|text| text.lines().any(|line| line.split(':').next() == Some(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn supplementary_groups_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npmm-agent:x:995:993::/usr/local/percona:/bin/false\n";
        let group = "root:x:0:\nadm:x:4:syslog,pmm-agent\nmysql:x:27:pmm-agent\npmm-agent:x:993:\n";
        let account = parse(passwd, group, "pmm-agent").unwrap();
        assert_eq!(
            (account.uid, account.gid, account.group.as_str()),
            (995, 993, "pmm-agent")
        );
        assert_eq!(account.groups, ["adm", "mysql"]);
        assert_eq!(parse(passwd, group, "nobody"), None);
    }
}
