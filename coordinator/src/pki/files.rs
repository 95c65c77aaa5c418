//! Keys and certificates on disk.

use super::PkiError;
use super::authority::{Authority, Pair, SERVER_DAYS};
use crate::clock;
use crate::config::DataDir;
use crate::config::permissions::{private_dir, write_private};
use fs_err as fs;

/// Makes CA and server certificate.
pub fn create(data: &DataDir, names: &[String]) -> Result<(), PkiError> {
    private_dir(&data.pki())?;
    let ca = Authority::generate()?;
    let authority = Authority::from_pem(&ca.certificate, &ca.key)?;
    let server = authority.issue_server(names)?;
    write_private(&data.ca_key(), ca.key.as_bytes(), 0o600)?;
    write_private(&data.ca_certificate(), ca.certificate.as_bytes(), 0o644)?;
    write_server(data, &authority, &server)?;
    write_private(&data.server_names(), names.join("\n").as_bytes(), 0o600)?;
    Ok(())
}

/// The CA of a data directory.
pub fn load(data: &DataDir) -> Result<Authority, PkiError> {
    Authority::from_pem(
        &fs::read_to_string(data.ca_certificate())?,
        &fs::read_to_string(data.ca_key())?,
    )
}

/// Renews the server certificate when less than a third of its time is left. Says whether it did.
pub(super) fn renew_server_if_due(data: &DataDir, authority: &Authority) -> Result<bool, PkiError> {
    let left_ms = not_after_ms(&fs::read(data.server_chain())?)?.saturating_sub(clock::now_ms());
    if left_ms > u64::from(SERVER_DAYS) * 24 * 3_600_000 / 3 {
        return Ok(false);
    }
    let names: Vec<String> = fs::read_to_string(data.server_names())?
        .lines()
        .map(str::to_owned)
        .collect();
    let server = authority.issue_server(&names)?;
    write_server(data, authority, &server)?;
    Ok(true)
}

/// End of the first certificate's validity, Unix milliseconds.
pub fn not_after_ms(pem: &[u8]) -> Result<u64, PkiError> {
    let chain = fleet_tls::certificates(pem, "certificate")?;
    let first = chain
        .first()
        .ok_or(fleet_tls::TlsError::Empty { what: "certificate" })?;
    Ok(u64::try_from(fleet_tls::identity::not_after(first)?)
        .unwrap_or(0)
        .saturating_mul(1000))
}

// The key goes first: a crash in between leaves a chain that does not fit, which `serve` reports and `init`'s rerun of this repairs.
fn write_server(data: &DataDir, authority: &Authority, server: &Pair) -> Result<(), PkiError> {
    let chain = format!("{}{}", server.certificate, authority.ca_pem());
    write_private(&data.server_key(), server.key.as_bytes(), 0o600)?;
    write_private(&data.server_chain(), chain.as_bytes(), 0o644)?;
    Ok(())
}

/// TLS of both listeners: agents, enrolment. A server certificate that is due or does not fit its key is made anew.
pub fn server_configs(
    data: &DataDir,
    authority: &Authority,
) -> Result<(rustls::ServerConfig, rustls::ServerConfig), PkiError> {
    if renew_server_if_due(data, authority)? {
        tracing::info!("the server certificate was renewed");
    }
    match read_configs(data) {
        Ok(configs) => Ok(configs),
        Err(error) => {
            tracing::warn!(error = %fleet_common::hint::chain(&error), "the server certificate is not usable; making a new one");
            let names: Vec<String> = fs::read_to_string(data.server_names())?
                .lines()
                .map(str::to_owned)
                .collect();
            write_server(data, authority, &authority.issue_server(&names)?)?;
            read_configs(data)
        }
    }
}

pub(super) fn read_configs(data: &DataDir) -> Result<(rustls::ServerConfig, rustls::ServerConfig), PkiError> {
    let ca = fs::read(data.ca_certificate())?;
    let chain = fs::read(data.server_chain())?;
    let key = fs::read(data.server_key())?;
    Ok((
        fleet_tls::server::mutual(&ca, &chain, &key)?,
        fleet_tls::server::plain(&chain, &key)?,
    ))
}
