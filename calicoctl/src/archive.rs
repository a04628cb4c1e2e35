//! Archives of what somebody who helps wants to see: files, and what programs say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Zoned;

use crate::Error;
use crate::output::print;

/// An archive that is being made, in a directory of its own.
pub(crate) struct Archive {
    dir: PathBuf,
    inner: PathBuf,
    path: String,
}

impl Archive {
    /// Begins one; `name` and the time are its file's name.
    pub(crate) fn begin(name: &str) -> Result<Self, Error> {
        let name = format!("{name}-{}", Zoned::now().strftime("%Y%m%d-%H%M%S"));
        let dir = std::env::temp_dir().join(name);
        let inner = dir.join("diagnostics");
        create(&inner)?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(Self { dir, inner, path: format!("{path}:/usr/sbin:/sbin:{}", own_dir()) })
    }

    /// Adds a file; its name may have directories.
    pub(crate) fn add(&self, name: impl AsRef<Path>, text: &[u8]) -> Result<(), Error> {
        let path = self.inner.join(name);
        if let Some(dir) = path.parent() {
            create(dir)?;
        }
        let failed = |source| Error::File { action: "write", path: path.clone(), source };
        fs::write(&path, text).map_err(failed)
    }

    /// Adds what a program says, or why it says nothing, and tells that it does.
    pub(crate) fn ask(&self, name: &str, command: &[&str]) -> Result<(), Error> {
        print(&format!("Collecting {name}"))?;
        let [program, arguments @ ..] = command else { return Ok(()) };
        let said = match Command::new(program).args(arguments).env("PATH", &self.path).output() {
            Ok(output) => [output.stdout, output.stderr].concat(),
            Err(error) => format!("{}: {error}\n", command.join(" ")).into_bytes(),
        };
        self.add(name, &said)
    }

    /// Packs all of it, and tells where it is.
    pub(crate) fn end(self) -> Result<(), Error> {
        let archive = self.dir.with_extension("tar.gz");
        let done = Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .args(["-C".as_ref(), self.dir.as_os_str(), "diagnostics".as_ref()])
            .status();
        match done {
            Ok(status) if status.success() => {
                // What is in the archive is not needed twice.
                let _ = fs::remove_dir_all(&self.dir);
                print(&format!("\nDiags saved to {}", archive.display()))
            }
            _ => Err(Error::Refused(format!(
                "tar(1) cannot make an archive; what was collected is in {}",
                self.dir.display()
            ))),
        }
    }
}

fn own_dir() -> String {
    let program = std::env::current_exe().ok();
    let dir = program.as_deref().and_then(Path::parent);
    dir.map(|dir| dir.display().to_string()).unwrap_or_default()
}

fn create(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { action: "make", path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)
}
