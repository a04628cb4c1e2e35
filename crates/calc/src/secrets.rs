//! Passwords of peers, which lie in Secrets.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::Password;
use model::peer::SecretKey;

use crate::Cluster;

/// The values of a Secret, `None` where one cannot be a password; the whole is `None` while the
/// Secret is not there.
pub type SecretValues = Option<BTreeMap<String, Option<Password>>>;

/// What is known of a password.
pub(crate) enum Lookup {
    /// It is this; `None` where none is wanted.
    Found(Option<Password>),
    /// Nobody has told yet.
    Pending,
    /// It cannot be had, and this is why.
    Missing(String),
}

impl Cluster {
    /// Returns the names of the Secrets that sessions of any node need.
    #[must_use]
    pub fn wanted_secrets(&self) -> BTreeSet<String> {
        let peers = self.peers.values().filter_map(|peer| peer.password.as_ref());
        peers.chain(&self.bgp.mesh_password).map(|place| place.secret.clone()).collect()
    }

    /// Returns whether every Secret that sessions need has been asked for and answered.
    #[must_use]
    pub fn are_secrets_known(&self) -> bool {
        self.wanted_secrets().iter().all(|name| self.secrets.contains_key(name))
    }

    pub(crate) fn password(&self, place: Option<&SecretKey>) -> Lookup {
        let Some(place) = place else { return Lookup::Found(None) };
        let missing = |what: &str| {
            Lookup::Missing(format!(
                "{place} {what}, so there is no session; create it in the namespace of \
                 calico-node and let calico-node read it"
            ))
        };
        match self.secrets.get(&place.secret) {
            None => Lookup::Pending,
            Some(None) => missing("is not there"),
            Some(Some(values)) => match values.get(&place.key) {
                None => missing("is not there"),
                Some(None) => missing("is empty or longer than 80 bytes"),
                Some(Some(password)) => Lookup::Found(Some(password.clone())),
            },
        }
    }
}
