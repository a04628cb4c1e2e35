//! The files of an image, and the archive that a layer is (OCI image specification, layer.md).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::Error;

/// What is at a path of a layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A file with these contents.
    Bytes {
        /// The contents.
        bytes: Vec<u8>,
        /// The permissions, such as `0o755`.
        mode: u32,
    },
    /// A file with the contents of another.
    Copy {
        /// The file to read when the image is written.
        from: PathBuf,
        /// The permissions.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it points to.
        to: String,
    },
    /// An empty directory, for mounts to go on.
    Directory {
        /// The permissions.
        mode: u32,
    },
}

/// Files of an image that are stored and shared as one.
#[derive(Clone, Debug, Default)]
pub struct Layer(BTreeMap<String, Entry>);

impl Layer {
    /// Puts something at `path`, in place of what was put there before; everything belongs to root.
    #[must_use]
    pub fn with(mut self, path: &str, entry: Entry) -> Self {
        self.0.insert(path.trim_matches('/').to_owned(), entry);
        self
    }

    /// Puts a copy of a program at `path`.
    #[must_use]
    pub fn with_program(self, path: &str, from: impl Into<PathBuf>) -> Self {
        self.with(path, Entry::Copy { from: from.into(), mode: 0o755 })
    }

    /// Puts a text that everybody may read at `path`.
    #[must_use]
    pub fn with_text(self, path: &str, text: &str) -> Self {
        self.with(path, Entry::Bytes { bytes: text.as_bytes().to_vec(), mode: 0o644 })
    }

    /// Returns the files that are copied into it.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.0.values().filter_map(|entry| match entry {
            Entry::Copy { from, .. } => Some(from.as_path()),
            Entry::Bytes { .. } | Entry::Link { .. } | Entry::Directory { .. } => None,
        })
    }

    /// Returns the layer as an archive, uncompressed.
    pub(crate) fn archive(&self) -> Result<Vec<u8>, Error> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.with_parents() {
            match entry {
                Entry::Bytes { bytes, mode } => append(&mut archive, path, *mode, bytes)?,
                Entry::Copy { from, mode } => {
                    let failed = |source| Error::Source { path: from.clone(), source };
                    append(&mut archive, path, *mode, &std::fs::read(from).map_err(failed)?)?;
                }
                Entry::Link { to } => {
                    let mut header = header(EntryType::Symlink, 0o777);
                    archive.append_link(&mut header, path, to)?;
                }
                Entry::Directory { mode } => {
                    let mut header = header(EntryType::Directory, *mode);
                    archive.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }

    /// Returns the entries with the directories that they are in, parents first.
    fn with_parents(&self) -> BTreeMap<String, Entry> {
        let mut all = self.0.clone();
        for path in self.0.keys() {
            for (end, _) in path.match_indices('/') {
                let parent = path.get(..end).unwrap_or_default().to_owned();
                all.entry(parent).or_insert(Entry::Directory { mode: 0o755 });
            }
        }
        all
    }
}

/// Appends a file that belongs to root and was never changed.
pub(crate) fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
    archive.append_data(&mut header, path, bytes)
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}
