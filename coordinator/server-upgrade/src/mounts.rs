//! What is mounted below the data directory without being part of the data: read-only mounts belong to the operator, and neither a copy nor
//! an owner change nor a restore touches them.

use serde_json::Value;

const DATA: &str = "/srv/";

/// Destinations strictly below `/srv` that are mounted read-only, sorted.
pub fn read_only(container: &Value) -> Vec<String> {
    let mut found: Vec<String> = inside(container, true).collect();
    found.sort();
    found
}

/// Writable mounts below a read-only one: they hold data, and passing the outer one by would pass them by as well.
pub fn writable_in_read_only(container: &Value) -> Vec<String> {
    let outer = read_only(container);
    inside(container, false)
        .filter(|at| outer.iter().any(|one| at.starts_with(&format!("{one}/"))))
        .collect()
}

fn inside(container: &Value, read_only: bool) -> impl Iterator<Item = String> {
    container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(move |mount| (mount["RW"] == Value::Bool(false)) == read_only)
        .filter_map(|mount| mount["Destination"].as_str())
        .filter(|at| at.len() > DATA.len() && at.starts_with(DATA))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_read_only_mounts_below_the_data_are_left_alone() {
        let container = json!({"Mounts": [
            {"Type": "volume", "Name": "pmm-data", "Destination": "/srv", "RW": true},
            {"Type": "bind", "Source": "/c", "Destination": "/srv/nginx", "RW": false},
            {"Type": "bind", "Source": "/b", "Destination": "/srv/nginx/own", "RW": true},
            {"Type": "bind", "Source": "/d", "Destination": "/srv/backup", "RW": true},
            {"Type": "bind", "Source": "/f", "Destination": "/srv/a.yml", "RW": false},
            {"Type": "bind", "Source": "/l", "Destination": "/etc/grafana/ldap.toml", "RW": false},
        ]});
        assert_eq!(read_only(&container), ["/srv/a.yml", "/srv/nginx"]);
        assert_eq!(writable_in_read_only(&container), ["/srv/nginx/own"]);
        assert!(read_only(&json!({})).is_empty());
    }
}
