//! The agent's own key and certificate, and a candidate for both. A candidate is one file, so that it is there as a whole or not at all; it
//! becomes the current one after a Welcome. Whatever the instant of a crash, one of the two is accepted by the coordinator:
//!
//! ```text
//! candidate stored ── tried first ── Welcome ── key, certificate replaced ── candidate removed
//!        └── refused: candidate removed, the current one goes on
//! ```
//!
//! Between the last two steps key and certificate may not fit each other; then the candidate, which was welcomed, still does.

use crate::config::Paths;
use crate::host::files;
use fleet_tls::identity::{not_after, not_before, public_key_sha256_hex};
use fleet_tls::rustls::ClientConfig;
use fs_err as fs;
use std::io;

/// Which identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that was welcomed last.
    Current,
    /// The new one.
    Candidate,
}

impl Which {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Current => Self::Candidate,
            Self::Candidate => Self::Current,
        }
    }
}

/// The wanted one, or the current where there is no candidate.
pub fn usable(paths: &Paths, wanted: Which) -> Which {
    if wanted == Which::Candidate && paths.candidate().exists() {
        Which::Candidate
    } else {
        Which::Current
    }
}

/// TLS with an identity, and the digest of the key that it shows.
pub fn tls(paths: &Paths, which: Which) -> anyhow::Result<(ClientConfig, String)> {
    let ca = fs::read(paths.ca())?;
    let (chain, key) = match which {
        Which::Current => (fs::read(paths.certificate())?, fs::read(paths.key())?),
        Which::Candidate => {
            let both = fs::read(paths.candidate())?;
            (both.clone(), both)
        }
    };
    Ok((fleet_tls::client::mutual(&ca, &chain, &key)?, key_of(&chain)?))
}

/// Stores a new key with its certificate, to be tried from now on.
pub fn store_candidate(paths: &Paths, key_pem: &str, certificate_pem: &str) -> io::Result<()> {
    let both = format!("{}\n{}", key_pem.trim_end(), certificate_pem);
    files::replace(&paths.candidate(), both.as_bytes(), files::PRIVATE)
}

/// Makes the candidate the current identity, if it is the one with this key; another may have taken its place meanwhile. May be done again
/// after a crash at any point of it.
pub fn promote(paths: &Paths, shown: &str) -> io::Result<()> {
    let both = match fs::read_to_string(paths.candidate()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if key_of(both.as_bytes()).is_ok_and(|key| key != shown) {
        return Ok(());
    }
    let at = both
        .find("-----BEGIN CERTIFICATE-----")
        .ok_or(io::ErrorKind::InvalidData)?;
    let (key, certificate) = both.split_at(at);
    let public = files::Ownership {
        mode: 0o644,
        ..files::PRIVATE
    };
    files::replace(&paths.key(), key.as_bytes(), files::PRIVATE)?;
    files::replace(&paths.certificate(), certificate.as_bytes(), public)?;
    remove_candidate(paths)?;
    tracing::info!("the agent uses its new certificate");
    Ok(())
}

/// Forgets the candidate with this key.
pub fn drop_candidate(paths: &Paths, shown: &str) -> io::Result<()> {
    let same = fs::read(paths.candidate())
        .ok()
        .and_then(|pem| key_of(&pem).ok())
        .is_none_or(|key| key == shown);
    if same { remove_candidate(paths) } else { Ok(()) }
}

fn remove_candidate(paths: &Paths) -> io::Result<()> {
    files::remove(&paths.candidate())?;
    match paths.candidate().parent() {
        Some(dir) => files::sync_dir(dir),
        None => Ok(()),
    }
}

/// Validity of the current certificate, Unix milliseconds.
pub fn validity_ms(paths: &Paths) -> anyhow::Result<(u64, u64)> {
    let chain = fleet_tls::certificates(&fs::read(paths.certificate())?, "own certificate")?;
    let leaf = chain
        .first()
        .ok_or_else(|| anyhow::anyhow!("{} is empty", paths.certificate().display()))?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Ok((ms(not_before(leaf)?), ms(not_after(leaf)?)))
}

/// The key of the current certificate.
pub fn current_key(paths: &Paths) -> anyhow::Result<String> {
    key_of(&fs::read(paths.certificate())?)
}

/// The key of a certificate.
pub fn key_of(pem: &[u8]) -> anyhow::Result<String> {
    let chain = fleet_tls::certificates(pem, "certificate")?;
    let leaf = chain
        .first()
        .ok_or_else(|| anyhow::anyhow!("no certificate where one should be"))?;
    Ok(public_key_sha256_hex(leaf)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(Vec::<String>::new())
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (key.serialize_pem(), certificate.pem())
    }

    #[test]
    fn at_every_instant_of_the_change_one_identity_fits_together() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        fs::create_dir_all(dir.path().join("identity")).unwrap();
        let ((old_key, old), (new_key, new)) = (pair(), pair());
        fs::write(paths.ca(), &old).unwrap();
        let set_up = || {
            fs::write(paths.key(), &old_key).unwrap();
            fs::write(paths.certificate(), &old).unwrap();
            store_candidate(&paths, &new_key, &new).unwrap();
        };
        // What is on disk after a kill before, between and after the two replacements.
        let cuts: [fn(&Paths, &str, &str); 3] = [
            |_, _, _| {},
            |paths, key, _| fs::write(paths.key(), key).unwrap(),
            |paths, key, certificate| {
                fs::write(paths.key(), key).unwrap();
                fs::write(paths.certificate(), certificate).unwrap();
            },
        ];
        for cut in cuts {
            set_up();
            cut(&paths, &new_key, &new);
            assert_eq!(usable(&paths, Which::Candidate), Which::Candidate);
            let (_, shown) = tls(&paths, Which::Candidate).unwrap();
            promote(&paths, "of another").unwrap();
            assert_eq!(usable(&paths, Which::Candidate), Which::Candidate);
            promote(&paths, &shown).unwrap();
            promote(&paths, &shown).unwrap();
            assert_eq!(usable(&paths, Which::Candidate), Which::Current);
            tls(&paths, Which::Current).unwrap();
            assert_eq!(current_key(&paths).unwrap(), key_of(new.as_bytes()).unwrap());
        }
        set_up();
        drop_candidate(&paths, &key_of(new.as_bytes()).unwrap()).unwrap();
        tls(&paths, usable(&paths, Which::Candidate)).unwrap();
        assert_eq!(current_key(&paths).unwrap(), key_of(old.as_bytes()).unwrap());
    }
}
