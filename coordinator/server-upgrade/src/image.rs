//! Images: references, and what an image gives to its containers.

use fleet_common::version::PmmVersion;
use serde_json::Value;

/// Paths inside of a PMM Server image whose text starts with its release (percona/pmm, dashboards role and `Dockerfile.el9`).
pub const VERSION_FILES: &[&str] = &[
    "/usr/share/percona-dashboards/VERSION",
    "/usr/share/pmm-server/VERSION",
];

/// The release in a version file of the image.
pub fn version_in_file(text: &str) -> Option<PmmVersion> {
    PmmVersion::from_package_version(text.trim()).ok()
}

/// Labels of an image that name its release.
const VERSION_LABELS: &[&str] = &["org.opencontainers.image.version", "version"];

/// The release that the image's labels name.
pub fn version_in_labels(config: &Value) -> Option<PmmVersion> {
    VERSION_LABELS
        .iter()
        .find_map(|label| config["Labels"][label].as_str()?.parse().ok())
}

/// Repository and tag of a reference; a registry's port is no tag, and a digest is neither.
pub fn split_reference(reference: &str) -> (&str, Option<&str>) {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

/// A member of an image's or a container's `Config` as lines.
pub fn strings(config: &Value, member: &str) -> Vec<String> {
    config[member]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| line.as_str().map(str::to_owned))
        .collect()
}

/// Whether a member says nothing.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_confuse_the_official_script() {
        assert_eq!(
            split_reference("host:5000/repo:2.44.1"),
            ("host:5000/repo", Some("2.44.1"))
        );
        assert_eq!(split_reference("host:5000/repo"), ("host:5000/repo", None));
        assert_eq!(split_reference("repo@sha256:abc"), ("repo", None));
        assert_eq!(split_reference("repo:3.9.1@sha256:abc"), ("repo", Some("3.9.1")));
    }
}
