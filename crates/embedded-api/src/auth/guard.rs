//! Authentication and authorization of a request, against what the store holds now.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::Mutex;
use tracing::debug;

use super::User;
use super::jwt::{Claims, Issuer, Verified};
use super::rbac::{GROUP, Grants};
use super::secret::{Digest, Token};
use crate::http::info::Info;
use crate::status::{Reason, Status};
use crate::store::{Key, Scope, Snapshot, Store};

/// The plurals whose objects grant something.
const GRANTING: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// Knows everybody who may come in, and what they may do.
pub(crate) struct Guard {
    admin: Digest,
    issuer: Arc<Issuer>,
    verified: Verified,
    store: Store,
    /// What was read last, and for which number of changes.
    grants: RwLock<(u64, Arc<Grants>)>,
    /// How often roles or bindings changed; counted before the writer of a change hears of it.
    changes: AtomicU64,
    reading: Mutex<()>,
}

impl Guard {
    /// Returns a guard that lets the holder of `admin` do everything.
    pub(crate) fn new(admin: &Token, issuer: Arc<Issuer>, store: Store) -> Self {
        let admin = Digest::of(admin.reveal());
        let (verified, grants) = (Verified::new(), RwLock::default());
        let (changes, reading) = (AtomicU64::new(1), Mutex::default());
        Self { admin, issuer, verified, store, grants, changes, reading }
    }

    /// Finds out who sent a request, by its `Authorization` header.
    ///
    /// # Errors
    ///
    /// 401; the client does not learn why, the log at debug level does.
    pub(crate) async fn authenticate(&self, header: Option<&str>) -> Result<User, Status> {
        let unauthorized = || Status::new(401, Reason::Unauthorized, "Unauthorized");
        let token = header.and_then(bearer).ok_or_else(unauthorized)?;
        if self.admin.matches(&Digest::of(token)) {
            return Ok(User::admin());
        }
        let claims = self.verified.verify(&self.issuer, token, SystemTime::now());
        let claims = claims.map_err(|refusal| {
            debug!(%refusal, "a token is not taken");
            unauthorized()
        })?;
        let user = User::service_account(
            &claims.bound.namespace,
            &claims.bound.serviceaccount.name,
            &claims.bound.serviceaccount.uid,
        );
        if self.store.read(move |snapshot| are_alive(snapshot, &claims)).await? {
            return Ok(user);
        }
        debug!(user = user.name, "a token is bound to what was deleted");
        Err(unauthorized())
    }

    /// Decides whether a user may do what a request asks for.
    ///
    /// # Errors
    ///
    /// 403 in the words of a real server, or the store's failure.
    pub(crate) async fn authorize(&self, user: &User, request: &Info) -> Result<(), Status> {
        if user.is_master() {
            return Ok(());
        }
        self.grants().await?.authorize(user, request)
    }

    async fn grants(&self) -> Result<Arc<Grants>, Status> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let changes = self.changes.load(Ordering::Acquire);
        let grants = Arc::new(self.store.read(load).await?);
        let known = (changes, Arc::clone(&grants));
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(grants)
    }

    fn known(&self) -> Option<Arc<Grants>> {
        let known = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        (known.0 == self.changes.load(Ordering::Acquire)).then(|| Arc::clone(&known.1))
    }

    /// Has the next decision read roles and bindings again, if a write may have changed them.
    pub(crate) fn written(&self, group: &str) {
        if group == GROUP {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Follows one kind of grants for ever: namespaces take theirs with them when they go.
    pub(crate) async fn follow(&self, plural: &str) {
        let resource: Arc<str> = format!("{plural}.{GROUP}").into();
        loop {
            let scope = Scope::All { resource: Arc::clone(&resource) };
            let mut watch = self.store.watch(scope, self.store.revision());
            self.changes.fetch_add(1, Ordering::AcqRel);
            let failure = loop {
                match watch.next().await {
                    Ok(_) => {
                        self.changes.fetch_add(1, Ordering::AcqRel);
                    }
                    Err(failure) => break failure,
                }
            };
            if failure.reason != Reason::Expired {
                return;
            }
        }
    }
}

/// Starts what keeps the guard's knowledge fresh; it ends with the runtime.
pub(crate) fn follow(guard: &Arc<Guard>) {
    for plural in GRANTING {
        let guard = Arc::clone(guard);
        tokio::spawn(async move { guard.follow(plural).await });
    }
}

/// Reads the administrator's token in `directory`, or makes one.
///
/// # Errors
///
/// If the file is unreadable, or others may have read it.
pub(crate) fn admin_token(directory: &Path) -> Result<Token, Error> {
    let path = directory.join("admin.token");
    if let Some(text) = super::files::read_private(&path)? {
        return Token::parse(&text).ok_or(Error::Token);
    }
    let token = Token::random()?;
    super::files::write_private(&path, token.reveal().as_bytes())?;
    Ok(token)
}

/// Why there is no administrator's token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error(transparent)]
    File(#[from] super::files::Error),
    /// What is in the file is none.
    #[error("admin.token holds no token of 16 or more letters: remove it to have a new one made")]
    Token,
    /// The kernel has no random numbers.
    #[error("no random numbers for a token: {0}")]
    Random(#[from] getrandom::Error),
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn load(snapshot: &Snapshot<'_>) -> Result<Grants, Status> {
    let mut grants = Grants::default();
    for plural in GRANTING {
        let resource = format!("{plural}.{GROUP}").into();
        let page = snapshot.page(&Scope::All { resource }, None, None, None)?;
        for entry in page.entries {
            grants.add(plural, &entry.json);
        }
    }
    Ok(grants)
}

/// A token ends with any object that it is bound to.
fn are_alive(snapshot: &Snapshot<'_>, claims: &Claims) -> Result<bool, Status> {
    let bound = &claims.bound;
    let namespace = bound.namespace.as_str();
    let references = [
        ("serviceaccounts", namespace, Some(&bound.serviceaccount)),
        ("pods", namespace, bound.pod.as_ref()),
        ("secrets", namespace, bound.secret.as_ref()),
        ("nodes", "", bound.node.as_ref()),
    ];
    for (plural, namespace, reference) in references {
        let Some(reference) = reference else { continue };
        let (namespace, name) = (namespace.into(), reference.name.as_str().into());
        let found = snapshot.get(&Key { resource: plural.into(), namespace, name })?;
        let object = found.map(|entry| entry.object()).transpose()?;
        if object.is_none_or(|object| object.uid() != Some(&reference.uid)) {
            return Ok(false);
        }
    }
    Ok(true)
}
