//! Container images as archives, made from files without a registry or a build daemon.
//!
//! An archive is an image layout (OCI image specification 1.0) with the `manifest.json` that
//! `docker load` wants beside it, so that `ctr images import`, `podman load` and `docker load`
//! all take it. What goes into it decides every byte of it: names are sorted, times are zero,
//! and the order of files, their owners and the compressor's header depend on nothing else.
//! Two runs over the same files give the same digest.
//!
//! Start at [`Image`], then [`Image::write`]; [`calico`] is the image of this project.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod calico;
mod layer;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use layer::{Entry, Layer};

/// An image: its name, what runs in it, and its files.
#[derive(Clone, Debug)]
pub struct Image {
    /// The whole name with a tag, such as `localhost/calico:0.1.0`.
    pub name: String,
    /// The processor, in Go's words: `amd64` or `arm64`.
    pub architecture: String,
    /// What runs when nothing else is asked for; the first word is the program.
    pub command: Vec<String>,
    /// The environment of what runs.
    pub env: BTreeMap<String, String>,
    /// What the image says about itself.
    pub labels: BTreeMap<String, String>,
    /// The files, what is rarely changed first.
    pub layers: Vec<Layer>,
}

/// Whether layers are made smaller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compression {
    /// They stay as they are, which is quick: for images that do not travel.
    None,
    /// They are compressed (RFC 1952).
    Gzip,
}

/// The digest of an image's manifest, which is what a reference by digest names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageDigest(String);

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that should go into it.
    #[error("{}: {source}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive.
    #[error("cannot write the archive: {0}")]
    Archive(#[from] io::Error),
}

impl std::fmt::Display for ImageDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Bytes with their digest, `sha256:` and 64 hexadecimal digits.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    /// Where it is in a layout.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

impl Image {
    /// Writes the image as an archive, and returns the digest of its manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] for a file that cannot be read, [`Error::Archive`] for `to`.
    pub fn write(&self, compression: Compression, to: impl Write) -> Result<ImageDigest, Error> {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let plain = layer.archive()?;
            diff_ids.push(digest(&plain));
            layers.push(Blob::new(compression.apply(plain)?));
        }
        let config = Blob::json(&self.config(&diff_ids));
        let descriptors: Vec<Value> =
            layers.iter().map(|layer| layer.descriptor(compression.media_type())).collect();
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": descriptors,
        }));
        let mut archive = tar::Builder::new(to);
        let texts = [
            ("index.json", self.index(&manifest)),
            ("manifest.json", self.docker_manifest(&config, &layers)),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ];
        let digest = ImageDigest(manifest.digest.clone());
        let mut blobs: BTreeMap<String, Vec<u8>> =
            texts.into_iter().map(|(name, text)| (name.into(), text.to_string().into())).collect();
        for blob in layers.into_iter().chain([config, manifest]) {
            blobs.insert(blob.path(), blob.bytes);
        }
        for (name, bytes) in &blobs {
            layer::append(&mut archive, name, 0o644, bytes)?;
        }
        archive.into_inner()?.flush()?;
        Ok(digest)
    }

    fn config(&self, diff_ids: &[String]) -> Value {
        let env: Vec<String> =
            self.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Cmd": self.command, "Env": env, "Labels": self.labels, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        if let Some(fields) = descriptor.as_object_mut() {
            let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            // The first is containerd's and Docker's word for the whole name, the second OCI's
            // for the tag.
            let names = json!({
                "io.containerd.image.name": self.name,
                "org.opencontainers.image.ref.name": tag,
            });
            fields.insert("annotations".to_owned(), names);
            let platform = json!({"architecture": self.architecture, "os": "linux"});
            fields.insert("platform".to_owned(), platform);
        }
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }

    fn docker_manifest(&self, config: &Blob, layers: &[Blob]) -> Value {
        let layers: Vec<String> = layers.iter().map(Blob::path).collect();
        json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": layers}])
    }
}

impl Compression {
    fn apply(self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes),
            Self::Gzip => {
                // No name and no time in the header, and always the same system.
                let header = flate2::GzBuilder::new().mtime(0).operating_system(255);
                let mut encoder = header.write(Vec::new(), flate2::Compression::new(6));
                encoder.write_all(&bytes)?;
                encoder.finish()
            }
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests;
