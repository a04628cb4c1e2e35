//! ADD's last step: waiting until calico-node has put the pod's policy into the kernel.
//!
//! Without it nothing gets through that policy denies, since the kernel drops what
//! interfaces that it does not know send; with it, what policy allows gets through from
//! the first packet on.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use api::endpoint_status::{file_name, is_about};
use kernel::directory::{self, Watch};
use kernel::files;
use model::id::NamespacedName;

/// How long a status file may be, in bytes.
const LIMIT: u64 = 1 << 16;

/// How the wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// Policy is in the kernel.
    Ready,
    /// Nobody has said so in time.
    TimedOut,
}

/// Waits until `directory` says that the policy of a pod with these addresses is in the kernel.
///
/// # Errors
///
/// [`directory::Error`] if the directory cannot be watched.
pub(crate) async fn wait(
    directory: &Path,
    pod: &NamespacedName,
    addrs: &[IpAddr],
    timeout: Duration,
) -> Result<Waited, directory::Error> {
    // Whoever comes first makes it: a directory that is not there cannot be watched.
    directory::make(directory)?;
    // Watched before it is looked at, so that no file is missed.
    let mut watch = Watch::open(directory)?;
    let path = directory.join(file_name(pod));
    let waiting = async {
        while !files::read(&path, LIMIT).is_ok_and(|text| is_about(&text, addrs)) {
            watch.changed().await?;
        }
        Ok(Waited::Ready)
    };
    tokio::time::timeout(timeout, waiting).await.unwrap_or(Ok(Waited::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::endpoint_status::EndpointStatus;

    const LONG: Duration = Duration::from_secs(60);

    fn pod() -> NamespacedName {
        NamespacedName { namespace: "red".to_owned(), name: "web-0".to_owned() }
    }

    fn addrs(text: &str) -> Vec<IpAddr> {
        vec![text.parse().unwrap()]
    }

    fn say(directory: &Path, addr: &str) {
        let text = EndpointStatus::new("cali1", None, &addrs(addr)).to_text();
        files::publish(&directory.join(file_name(&pod())), text.as_bytes(), 0o644).unwrap();
    }

    #[tokio::test]
    async fn what_a_former_pod_has_left_is_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        say(directory.path(), "10.0.0.9");
        let mine = addrs("10.0.0.1");
        let waited = wait(directory.path(), &pod(), &mine, Duration::from_millis(50)).await;
        assert_eq!(waited.unwrap(), Waited::TimedOut);
        let (pod, saying) = (pod(), async { say(directory.path(), "10.0.0.1") });
        let (waited, ()) = tokio::join!(wait(directory.path(), &pod, &mine, LONG), saying);
        assert_eq!(waited.unwrap(), Waited::Ready);
    }

    #[tokio::test]
    async fn an_empty_file_is_the_answer_of_an_older_calico() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("calico/endpoint-status");
        directory::make(&deep).unwrap();
        std::fs::write(deep.join(file_name(&pod())), "").unwrap();
        let waited = wait(&deep, &pod(), &addrs("10.0.0.1"), LONG).await;
        assert_eq!(waited.unwrap(), Waited::Ready);
    }
}
