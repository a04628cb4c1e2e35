//! Keys and certificates of one control plane, on the curve that makes handshakes cheap.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use super::write_secret;
use crate::Error;

/// Writes `ca.crt`, `server.{key,crt}`, `kubelet-client.{key,crt}` and `sa.{key,pub}` into `dir`,
/// unless they are there.
///
/// The certificates never expire: neither they nor what they protect outlive the lab.
pub(super) fn write(dir: &Path, addr: IpAddr) -> Result<(), Error> {
    if dir.join("server.crt").exists() {
        return Ok(());
    }
    let authority = authority()?;
    let failed = |error: rcgen::Error| Error::program("certificates", error);
    let (key, certificate) = server(&authority, addr)?;
    let client_key = KeyPair::generate().map_err(failed)?;
    let client = client().signed_by(&client_key, &authority).map_err(failed)?;
    write_secret(dir, "kubelet-client.key", &client_key.serialize_pem())?;
    write_secret(dir, "kubelet-client.crt", &client.pem())?;
    write_secret(dir, "ca.crt", &authority.pem())?;
    write_secret(dir, "server.key", &key)?;
    write_token_keys(dir)?;
    // Last, since it stands for all of them.
    write_secret(dir, "server.crt", &certificate)
}

/// Makes a new authority and a certificate of it for the server: `ca.crt` holds the old authority
/// and the new one, and what is for later is beside it.
pub(super) fn announce_authority(dir: &Path, addr: IpAddr) -> Result<(), Error> {
    let authority = authority()?;
    let (key, certificate) = server(&authority, addr)?;
    let path = dir.join("ca.crt");
    let old = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    write_secret(dir, "next-ca.crt", &authority.pem())?;
    write_secret(dir, "next-server.key", &key)?;
    write_secret(dir, "next-server.crt", &certificate)?;
    write_secret(dir, "both-ca.crt", &format!("{old}{}", authority.pem()))?;
    replace(dir, "both-ca.crt", "ca.crt")
}

/// Gives the server the certificate of the new authority.
pub(super) fn use_authority(dir: &Path) -> Result<(), Error> {
    replace(dir, "next-server.key", "server.key")?;
    replace(dir, "next-server.crt", "server.crt")
}

/// Takes the old authority out of `ca.crt`.
pub(super) fn retire_authority(dir: &Path) -> Result<(), Error> {
    replace(dir, "next-ca.crt", "ca.crt")
}

/// Nobody who reads the file meets half of it.
fn replace(dir: &Path, from: &str, to: &str) -> Result<(), Error> {
    let path = dir.join(from);
    std::fs::rename(&path, dir.join(to)).map_err(Error::file(&path))
}

/// Returns an authority; each has the same name, as kubeadm's have.
fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, Error> {
    let failed = |error: rcgen::Error| Error::program("certificates", error);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "lab-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)
}

/// Returns the key and the certificate of the API server.
fn server(
    authority: &CertifiedIssuer<'static, KeyPair>,
    addr: IpAddr,
) -> Result<(String, String), Error> {
    let failed = |error: rcgen::Error| Error::program("certificates", error);
    let addr = addr.to_string();
    let names = [&addr, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc"];
    let names: Vec<String> = names.map(str::to_owned).into();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, authority).map_err(failed)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// Writes `sa.{key,pub}`, by which tokens of service accounts are signed: anew, if they are there.
pub(super) fn write_token_keys(dir: &Path) -> Result<(), Error> {
    let tokens = KeyPair::generate().map_err(|error| Error::program("signing keys", error))?;
    write_secret(dir, "sa.key", &tokens.serialize_pem())?;
    write_secret(dir, "sa.pub", &tokens.public_key_pem())
}

/// Who the API server is towards kubelets; the names are kubeadm's.
fn client() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
