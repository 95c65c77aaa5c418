//! The certificate under `/srv/nginx`.

use std::{io, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::role::named;

/// Where the files are.
pub const DIR: &str = "/srv/nginx";

/// Writes a self-signed certificate as PMM does on a new installation.
pub fn make(dir: &Path) -> io::Result<()> {
    let names = ["localhost", "pmm-server", "pmm.lab"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let write =
        |name: &str, text: &str| std::fs::write(dir.join(name), text).map_err(|e| named(&dir.join(name), e));
    write("certificate.crt", &made.cert.pem())?;
    write("certificate.key", &made.signing_key.serialize_pem())?;
    write("ca-certs.pem", &made.cert.pem())?;
    write(
        "dhparam.pem",
        "-----BEGIN DH PARAMETERS-----\nMAA=\n-----END DH PARAMETERS-----\n",
    )?;
    write(
        "certificate.conf",
        "[req]\ndistinguished_name = req_distinguished_name\n",
    )
}

/// Reads the certificate and key.
pub fn acceptor(dir: &Path) -> io::Result<TlsAcceptor> {
    let read = |name: &str| {
        std::fs::read(dir.join(name)).map_err(|e| {
            io::Error::other(format!(
                "cannot load certificate \"{}\": {e}",
                dir.join(name).display()
            ))
        })
    };
    let chain = read("certificate.crt")?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(&read("certificate.key")?).map_err(io::Error::other)?;
    read("dhparam.pem")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
