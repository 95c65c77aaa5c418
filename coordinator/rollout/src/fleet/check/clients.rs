//! `[clients]`.

use super::super::error::Findings;
use super::super::raw::{self, Spanned};
use super::super::{Clients, Lines};
use super::{NO_RELEASE, release};
use fleet_common::plan_entry::ClientSource;
use fleet_common::version::PmmVersion;
use std::collections::BTreeMap;

const REPOSITORY: &str = "https://repo.percona.com";
const TARBALLS: &str = "https://downloads.percona.com/downloads";

pub(super) fn clients(
    raw: Option<Spanned<raw::Clients>>,
    server: PmmVersion,
    lines: &mut Lines,
    found: &mut Findings<'_>,
) -> Clients {
    let raw = raw.map(Spanned::into_inner).unwrap_or_default();
    lines.clients_target = lines.server_target;
    let target = raw.target.map_or(server, |target| {
        let at = target.at();
        lines.clients_target = Some(found.line(at));
        let version = release(&target, "clients.target", found);
        if version > server && server != NO_RELEASE {
            found.add(
                Some(at),
                format!("clients.target {version} is newer than server.target {server}"),
                "clients must not be newer than their PMM Server",
            );
        } else if version.major != server.major && version != NO_RELEASE && server != NO_RELEASE {
            found.add(
                Some(at),
                format!("clients.target {version} and server.target {server} are of different majors"),
                "give both the same major release",
            );
        }
        version
    });
    let component = raw
        .source
        .and_then(|source| source.percona_repository)
        .map_or_else(
            || "release".to_owned(),
            |text| {
                if !["release", "testing", "experimental"].contains(&text.get_ref().as_str()) {
                    found.add(
                        Some(text.at()),
                        format!("percona_repository = \"{}\" is not known", text.get_ref()),
                        "write release, testing or experimental",
                    );
                }
                text.into_inner()
            },
        );
    let address =
        |text: raw::Text, key: &str, default: &str, schemes: &[&str], found: &mut Findings<'_>| match text {
            None => default.to_owned(),
            Some(text) => {
                if !schemes.iter().any(|scheme| text.get_ref().starts_with(scheme)) {
                    found.add(
                        Some(text.at()),
                        format!("{key} = \"{}\" is not an address", text.get_ref()),
                        format!("begin it with {}", schemes.join(" or ")),
                    );
                }
                text.into_inner().trim_end_matches('/').to_owned()
            }
        };
    let repository_url = address(
        raw.repository_url,
        "clients.repository_url",
        REPOSITORY,
        &["https://", "http://"],
        found,
    );
    let tarball = raw.tarball.unwrap_or_default();
    let tarball_url = address(
        tarball.url,
        "clients.tarball.url",
        TARBALLS,
        &["https://", "http://", "file:///"],
        found,
    );
    let mut tarball_sha256 = BTreeMap::new();
    for (name, digest) in tarball.sha256 {
        let hex = digest.get_ref().to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            found.add(
                Some(digest.at()),
                format!("the digest of {name} is not a SHA-256"),
                "write 64 hex digits",
            );
        }
        tarball_sha256.insert(name, hex);
    }
    Clients {
        target,
        source: ClientSource {
            repository_url,
            component,
            tarball_url,
            tarball_sha256,
        },
    }
}
