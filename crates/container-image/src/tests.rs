//! Facts about archives, read back as a container runtime would.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

fn image() -> Image {
    let program = Entry::Bytes { bytes: b"#!".to_vec(), mode: 0o755 };
    let layer = Layer::default()
        .with("/usr/bin/calico", program)
        .with("/bin", Entry::Link { to: "usr/bin".to_owned() })
        .with("/tmp", Entry::Directory { mode: 0o1777 });
    Image {
        name: "localhost/calico:0.1.0".to_owned(),
        architecture: "amd64".to_owned(),
        command: vec!["/usr/bin/calico".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
        labels: BTreeMap::new(),
        layers: vec![layer, Layer::default().with_text("etc/os-release", "ID=calico\n")],
    }
}

fn written(image: &Image, compression: Compression) -> (Vec<u8>, String) {
    let mut archive = Vec::new();
    let digest = image.write(compression, &mut archive).unwrap();
    (archive, digest.to_string())
}

/// Returns the files of an archive with their modes, in their order.
fn files(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mode = entry.header().mode().unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0, "{path}");
        assert_eq!(entry.header().uid().unwrap(), 0, "{path}");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, mode, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn file(archive: &[u8], name: &str) -> Vec<u8> {
    let found = files(archive).into_iter().find(|(path, ..)| path == name);
    found.unwrap_or_else(|| panic!("{name} is missing")).2
}

fn json(archive: &[u8], name: &str) -> Value {
    serde_json::from_slice(&file(archive, name)).unwrap()
}

#[test]
fn the_same_files_give_the_same_bytes() {
    for compression in [Compression::None, Compression::Gzip] {
        let (first, second) = (written(&image(), compression), written(&image(), compression));
        assert_eq!(first, second, "{compression:?}");
    }
}

#[test]
fn the_order_in_which_files_are_added_does_not_matter() {
    let text = |layer: Layer, path: &str| layer.with_text(path, path);
    let forth = ["b", "a/c", "a/b"].into_iter().fold(Layer::default(), text);
    let back = ["a/b", "a/c", "b"].into_iter().fold(Layer::default(), text);
    assert_eq!(forth.archive().unwrap(), back.archive().unwrap());
}

#[test]
fn another_byte_gives_another_digest() {
    let mut other = image();
    other.layers.push(Layer::default().with_text("more", "1"));
    assert_ne!(written(&image(), Compression::Gzip).1, written(&other, Compression::Gzip).1);
}

#[test]
fn directories_come_before_what_is_in_them() {
    let layer = image().layers.swap_remove(0).archive().unwrap();
    let names: Vec<(String, u32)> =
        files(&layer).into_iter().map(|(path, mode, _)| (path, mode)).collect();
    let expected = [("bin", 0o777), ("tmp/", 0o1777), ("usr/", 0o755), ("usr/bin/", 0o755)];
    let expected = expected.into_iter().chain([("usr/bin/calico", 0o755)]);
    let expected: Vec<_> = expected.map(|(path, mode)| (path.to_owned(), mode)).collect();
    assert_eq!(names, expected);
}

#[test]
fn every_descriptor_names_a_blob_of_that_size_and_digest() {
    let (archive, manifest_digest) = written(&image(), Compression::Gzip);
    let blob = |descriptor: &Value| {
        let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let bytes = file(&archive, &format!("blobs/{name}"));
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(descriptor["digest"], digest(&bytes));
        bytes
    };
    let index = json(&archive, "index.json");
    assert_eq!(index["manifests"][0]["digest"], manifest_digest);
    let names = &index["manifests"][0]["annotations"];
    assert_eq!(names["io.containerd.image.name"], "localhost/calico:0.1.0");
    assert_eq!(names["org.opencontainers.image.ref.name"], "0.1.0");
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&blob(layer)[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(*diff_id, digest(&plain));
    }
    let docker = json(&archive, "manifest.json");
    assert_eq!(docker[0]["RepoTags"][0], "localhost/calico:0.1.0");
    let config_path = docker[0]["Config"].as_str().unwrap();
    assert!(!file(&archive, config_path).is_empty());
}

#[test]
fn a_file_that_is_missing_is_named() {
    let mut broken = image();
    broken.layers.push(Layer::default().with_program("bin/none", "/no/such/program"));
    let error = broken.write(Compression::None, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("/no/such/program"), "{error}");
}
