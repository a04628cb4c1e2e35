//! What a pod has of its service account, as a kubelet writes it.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::Cluster;
use crate::Error;
use crate::node::Node;

/// Where it is, below a node's `/run`.
const ACCOUNT: &str = "secrets/kubernetes.io/serviceaccount";

impl Cluster {
    /// Writes a version of it, with the cluster's authority as it is now: into a new directory, to
    /// which a link is swapped.
    ///
    /// # Errors
    ///
    /// [`Error`] of the file that cannot be written.
    pub fn write_account(&self, node: &Node, version: &str, token: &str) -> Result<(), Error> {
        let dir = node.dir.join("run").join(ACCOUNT);
        let version = format!("..{}", version.replace(' ', "-"));
        let new = dir.join(&version);
        std::fs::create_dir_all(&new).map_err(Error::file(&new))?;
        let authority = self.control_plane.file("ca.crt");
        let authority = std::fs::read_to_string(&authority).map_err(Error::file(&authority))?;
        for (name, text) in
            [("ca.crt", authority.as_str()), ("token", token), ("namespace", "kube-system")]
        {
            let path = new.join(name);
            std::fs::write(&path, text).map_err(Error::file(&path))?;
            let link = dir.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), &link).map_err(Error::file(&link))?;
            }
        }
        let (link, data) = (dir.join("..data_tmp"), dir.join("..data"));
        symlink(&version, &link).map_err(Error::file(&link))?;
        std::fs::rename(&link, &data).map_err(Error::file(&data))
    }
}
