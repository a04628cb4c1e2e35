//! Keeps the plugin's credentials fresh, whatever happens to clocks, keys and files.

use std::path::PathBuf;
use std::time::Duration;

use cni_service::listen;
use datastore::Client;
use model::time::{Timestamp, WallTime};
use reconcile::Backoff;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::access::{self, Credentials};
use super::renewal::{self, Made, Now, Reason, State, Step};
use super::settings::{self, Access, Environment};

/// How often it is looked whether there is something to do; a look reads two small files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long to wait after a failure.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// What keeps the credentials of one node.
pub(crate) struct Keeper {
    client: Client,
    access: Access,
    path: PathBuf,
    base: Option<Duration>,
    written: Option<Credentials>,
    /// Tells what is written now.
    told: watch::Sender<Option<SecretString>>,
    state: State,
    wait: Option<Duration>,
    started: Instant,
}

/// Returns what keeps this node's credentials, if that is asked for and the directory is there.
pub(crate) fn of_daemon(client: &Client, environment: &Environment) -> Option<Keeper> {
    let path = settings::mounted_kubeconfig()?;
    match Access::read(environment, &access::own_namespace()) {
        Ok(access) => {
            let mut keeper = Keeper::new(client.clone(), access, path);
            keeper.base = base(environment);
            Some(keeper)
        }
        Err(error) => {
            warn!(%error, "the CNI plugin's credentials are not renewed");
            None
        }
    }
}

/// Reads how often tokens are renewed, if somebody says so.
fn base(environment: &Environment) -> Option<Duration> {
    let text = environment.get("CNI_TOKEN_REFRESH_INTERVAL").filter(|text| !text.is_empty())?;
    let read = api::duration(text);
    if read.is_none() {
        warn!(
            text,
            "CNI_TOKEN_REFRESH_INTERVAL is no duration: write one such as 6h; not followed"
        );
    }
    read
}

impl Keeper {
    /// Makes what keeps the file at `path`; the first thing that it does is to renew it.
    pub(crate) fn new(client: Client, access: Access, path: PathBuf) -> Self {
        let (base, written, wait) = (None, None, None);
        let (told, state) = (watch::Sender::new(None), State::default());
        Self { client, access, path, base, written, told, state, wait, started: Instant::now() }
    }

    /// Returns where the credentials are kept, and what tells of new ones.
    pub(crate) fn kept(&self) -> listen::Credentials {
        let (path, text) = (self.path.clone(), self.told.subscribe());
        listen::Credentials { path, text, is_in_place: access::is_in_place }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut looks = time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        if let Some(written) = &self.written {
            self.state.is_in_place = access::is_in_place(&self.path, &written.text);
            self.state.has_other_authority = written.is_of_other_authority(&self.access);
        }
        let step = renewal::decide(&self.state, self.now());
        let result = match step {
            Step::Rest => return,
            Step::Renew(reason) => self.renew(reason).await,
            Step::Trust => self.trust(),
            Step::Restore => self.restore(),
            Step::Check => self.check().await,
        };
        match result {
            Ok(()) => {
                self.wait = None;
                self.state.waits_until = None;
            }
            Err(error) => {
                let wait = BACKOFF.after(self.wait);
                let path = self.path.display();
                warn!(%path, %error, ?wait, "cannot keep the CNI plugin's credentials fresh");
                self.wait = Some(wait);
                self.state.waits_until = Some(self.now().steady + wait);
            }
        }
    }

    async fn renew(&mut self, reason: Reason) -> Result<(), access::Error> {
        let credentials = access::request(&self.client, &self.access).await?;
        access::write(&self.path, &credentials.text)?;
        let lifetime = credentials.token.lifetime;
        let random = getrandom::u32().unwrap_or_default();
        let jitter = f64::from(random) / f64::from(u32::MAX);
        let period = renewal::period(lifetime, self.base, jitter);
        let at = self.now();
        self.note(credentials);
        self.state.made = Some(Made { at, period });
        // A minute from now, not at once: the server has just made it.
        self.state.checked = Some(at.steady);
        self.state.is_refused = false;
        let reason = reason.text();
        info!(reason, ?lifetime, again_in = ?period, "the CNI plugin has a new token");
        Ok(())
    }

    /// The plugin is to trust whom we are told to trust; its token stays.
    fn trust(&mut self) -> Result<(), access::Error> {
        let Some(written) = &self.written else { return Ok(()) };
        let credentials = written.trusting_anew(&self.access)?;
        access::write(&self.path, &credentials.text)?;
        self.note(credentials);
        info!("the CNI plugin trusts the certificate authority that calico-node has now");
        Ok(())
    }

    fn note(&mut self, written: Credentials) {
        self.told.send_replace(Some(written.text.clone()));
        self.written = Some(written);
    }

    fn restore(&self) -> Result<(), access::Error> {
        let Some(Credentials { text, .. }) = &self.written else { return Ok(()) };
        warn!(path = %self.path.display(), "somebody has changed the CNI plugin's credentials: restored");
        Ok(access::write(&self.path, text)?)
    }

    /// Asks whether the token is still taken. That the server cannot be reached proves nothing.
    async fn check(&mut self) -> Result<(), access::Error> {
        let Some(Credentials { text, .. }) = &self.written else { return Ok(()) };
        let answer = access::probe(text).await;
        self.state.checked = Some(self.now().steady);
        self.state.is_refused = matches!(answer, Err(datastore::Error::Unauthorized { .. }));
        Ok(())
    }

    fn now(&self) -> Now {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX));
        Now { steady: Timestamp::from_origin(self.started.elapsed()), wall: WallTime(nanos) }
    }
}
