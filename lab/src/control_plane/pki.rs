//! Keys and certificates of one control plane, on the curve that makes handshakes cheap.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::process::output;

/// How long certificates are valid, in days; a lab does not live that long.
const DAYS: &str = "30";

/// Writes `ca.{key,crt}`, `server.{key,crt}` and `sa.key` into `dir`, unless they are there.
pub(super) fn write(dir: &Path, addr: IpAddr) -> Result<(), Error> {
    if dir.join("server.crt").exists() {
        return Ok(());
    }
    for name in ["ca.key", "server.key", "sa.key"] {
        openssl(dir, &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", name])?;
    }
    let ca = ["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=lab-ca", "-days", DAYS];
    openssl(dir, &[&ca[..], &["-out", "ca.crt"]].concat())?;
    let request = ["req", "-new", "-key", "server.key", "-subj", "/CN=kube-apiserver"];
    openssl(dir, &[&request[..], &["-out", "server.csr"]].concat())?;
    let names = format!(
        "subjectAltName=IP:{addr},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,\
         DNS:kubernetes.default.svc\n"
    );
    let extensions = dir.join("server.ext");
    std::fs::write(&extensions, names).map_err(Error::file(&extensions))?;
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"];
    let rest = ["-CAcreateserial", "-days", DAYS, "-extfile", "server.ext", "-out", "server.crt"];
    openssl(dir, &[&sign[..], &rest[..]].concat())
}

fn openssl(dir: &Path, arguments: &[&str]) -> Result<(), Error> {
    output(Command::new("openssl").args(arguments).current_dir(dir)).map(|_| ())
}
