//! The certificate authority of one data directory, and the server's certificate (RFC 5280).
//!
//! The authority is made at the first start and kept; the server's key and certificate are
//! made at each start and never touch the disk.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::files;

/// The authority's private key.
const KEY: &str = "ca.key";
/// The authority's certificate.
const CERTIFICATE: &str = "ca.crt";
/// The names under which a cluster's pods know their API server.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of it.
    #[error(transparent)]
    File(#[from] files::Error),
    /// What is in the file is no key, or cannot sign.
    #[error(
        "the certificate authority cannot be used: {0}; remove ca.key and ca.crt to have a new one made (clients then need a new kubeconfig)"
    )]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take the certificate.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Signs the server's certificate; clients trust it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    certificate: String,
}

impl Authority {
    /// Reads the authority in `directory`, or makes one there.
    ///
    /// # Errors
    ///
    /// [`Error`] if it is unreadable; it is never replaced silently.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let (key, certificate) = (directory.join(KEY), directory.join(CERTIFICATE));
        let params = authority_params();
        let key_pair = if let Some(pem) = files::read_private(&key)? {
            KeyPair::from_pem(&pem)?
        } else {
            let new = KeyPair::generate()?;
            // The certificate of an older key must not outlive it.
            files::write_private(&certificate, params.self_signed(&new)?.pem().as_bytes())?;
            files::write_private(&key, new.serialize_pem().as_bytes())?;
            new
        };
        let pem = if let Some(pem) = files::read_private(&certificate)? {
            pem
        } else {
            let pem = params.self_signed(&key_pair)?.pem();
            files::write_private(&certificate, pem.as_bytes())?;
            pem
        };
        Ok(Self { issuer: Issuer::new(params, key_pair), certificate: pem })
    }

    /// Returns the authority's certificate, in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the TLS configuration of a server that is reached at `addresses`.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel has no random numbers.
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> Result<rustls::ServerConfig, Error> {
        let key = KeyPair::generate()?;
        let certificate = server_params(addresses)?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// It never expires: a data directory would otherwise stop working some day, without a word.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("calico-datastore-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params
}

fn server_params(addresses: &[IpAddr]) -> Result<CertificateParams, rcgen::Error> {
    let names = NAMES.iter().map(|name| (*name).to_owned());
    let addresses = addresses.iter().map(ToString::to_string);
    let mut params = CertificateParams::new(names.chain(addresses).collect::<Vec<_>>())?;
    params.distinguished_name = named("calico-datastore");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // The key lives as long as the process only.
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keeps_its_key_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path()).unwrap();
        let second = Authority::open(directory.path()).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let mode = |name| directory.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!((mode(KEY) & 0o777, mode(CERTIFICATE) & 0o777), (0o600, 0o600));
    }

    #[test]
    fn its_clients_trust_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let server = authority.server(&addresses).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let pem =
            rustls::pki_types::pem::PemObject::from_pem_slice(authority.certificate().as_bytes());
        roots.add(pem.unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        for (name, is_trusted) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("kubernetes.default.svc", true),
            ("localhost", true),
            ("10.0.0.1", false),
            ("example.org", false),
        ] {
            let done = handshake(client.clone(), server.clone(), name);
            assert_eq!(done.is_ok(), is_trusted, "{name}: {done:?}");
        }
    }

    fn handshake(
        client: rustls::ClientConfig,
        server: rustls::ServerConfig,
        name: &str,
    ) -> Result<(), rustls::Error> {
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(client.into(), name)?;
        let mut server = rustls::ServerConnection::new(server.into())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_broken_key_is_reported_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        files::write_private(&directory.path().join(KEY), b"not a key").unwrap();
        assert!(matches!(Authority::open(directory.path()), Err(Error::Certificate(_))));
        let kept = files::read_private(&directory.path().join(KEY)).unwrap();
        assert_eq!(kept.as_deref(), Some("not a key"));
    }
}
