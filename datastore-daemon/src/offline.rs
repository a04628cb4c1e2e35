//! What needs no running server: backup, restore, tokens, kubeconfigs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embedded_api::server::{self, Identity, STORE};
use embedded_api::service::{Service, Target};
use embedded_api::store::{self, Store};
use embedded_api::verb::WriteOptions;
use embedded_api::{Status, resource::Subresource};
use tracing::info;

use crate::arguments::Account;
use crate::error::Error;

/// Writes a result to standard output.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Error> {
    let failed =
        |source| Error::File { action: "write to", path: "standard output".into(), source };
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failed)
}

/// Copies the store.
pub(crate) fn backup(directory: &Path, to: &Path) -> Result<(), Error> {
    let revision = store::backup(&existing(directory)?, to)?;
    info!(revision, file = %to.display(), "backed up");
    Ok(())
}

/// Makes a store from a copy.
pub(crate) fn restore(directory: &Path, from: &Path) -> Result<(), Error> {
    server::prepare(directory)?;
    let revision = store::restore(from, &directory.join(STORE))?;
    info!(revision, directory = %directory.display(), "restored");
    Ok(())
}

/// Prints a token.
pub(crate) async fn token(directory: &Path, account: &Account) -> Result<(), Error> {
    existing(directory)?;
    let token = token_of(directory, account).await?;
    print(format!("{token}\n").as_bytes())
}

/// Prints a kubeconfig for the server as it was started last.
pub(crate) async fn kubeconfig(directory: &Path, account: &Account) -> Result<(), Error> {
    existing(directory)?;
    let identity = Identity::open(directory)?;
    let token = token_of(directory, account).await?;
    let user = match &account.service_account {
        None => "admin".to_owned(),
        Some((namespace, name)) => format!("{namespace}-{name}"),
    };
    print(identity.kubeconfig(&user, &token).as_bytes())
}

async fn token_of(directory: &Path, account: &Account) -> Result<String, Error> {
    let identity = Identity::open(directory)?;
    let Some((namespace, name)) = &account.service_account else {
        return Ok(identity.admin_token().reveal().to_owned());
    };
    let copy = Copy::of(directory).await?;
    let registry = copy.service.registry();
    let resource = registry.get("", "v1", "serviceaccounts").cloned();
    let resource = resource.ok_or_else(|| Status::internal("there are no service accounts"))?;
    let target = Target {
        resource: Arc::clone(&resource),
        namespace: namespace.clone(),
        name: name.clone(),
        subresource: Some(Subresource::Token),
    };
    let body = serde_json::json!({"spec": {"expirationSeconds": account.duration}});
    let request =
        copy.service.token_request(target, WriteOptions::default(), body, identity.signer());
    let answer = request.await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.json).unwrap_or_default();
    let token = answer.pointer("/status/token").and_then(serde_json::Value::as_str);
    Ok(token.unwrap_or_default().to_owned())
}

/// Returns the store's file, which must be there.
fn existing(directory: &Path) -> Result<PathBuf, Error> {
    let file = directory.join(STORE);
    if file.exists() { Ok(file) } else { Err(Error::NoDatastore(directory.to_owned())) }
}

/// The datastore as it is at one moment; a server may serve it meanwhile.
pub(crate) struct Copy {
    pub(crate) service: Service,
    directory: PathBuf,
}

impl Copy {
    /// Copies the store into a private directory beside it, and opens the copy.
    pub(crate) async fn of(directory: &Path) -> Result<Self, Error> {
        let file = existing(directory)?;
        let copy = directory.join(format!("copy-{}", std::process::id()));
        server::prepare(&copy)?;
        let path = copy.join(STORE);
        // What is there is of a run that was killed: the name holds a process id.
        drop(std::fs::remove_file(&path));
        let opened =
            store::backup(&file, &path).and_then(|_| Store::open(&path, store::Options::default()));
        let opened = match opened {
            Ok(store) => Service::open(store).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(service) => Ok(Self { service, directory: copy }),
            Err(error) => {
                drop(std::fs::remove_dir_all(&copy));
                Err(error)
            }
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It holds secrets; mode 0700 protects them if this fails.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
