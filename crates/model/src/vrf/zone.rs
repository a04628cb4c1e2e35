//! Zones: within one, an address is one endpoint's.

use super::{VrfName, Vrfs};

/// All that exchange routes with each other: within a zone an address is one endpoint's, beyond
/// it somebody else's.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Zone {
    /// Those without a VRF, and the VRFs that exchange routes with them.
    #[default]
    Default,
    /// VRFs, by the number that they have in common ([`Vrf::zone`](super::Vrf::zone)).
    Vrfs(u16),
    /// What is in a VRF that no pool has: it can reach nobody, and is nobody.
    Nowhere,
}

impl Zone {
    /// Returns the zone of connection tracking.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Default | Self::Nowhere => 0,
            Self::Vrfs(number) => number,
        }
    }

    /// Returns how names end of what is there for each zone; nothing for the default.
    #[must_use]
    pub fn suffix(self) -> String {
        match self {
            Self::Default => String::new(),
            Self::Vrfs(number) => format!("_{number}"),
            Self::Nowhere => "_nowhere".to_owned(),
        }
    }
}

impl Vrfs {
    /// Returns the zone of who is in `vrf`, or in none.
    #[must_use]
    pub fn zone(&self, vrf: Option<&VrfName>) -> Zone {
        let Some(vrf) = vrf else { return Zone::Default };
        match self.by_name.get(vrf).map(|vrf| vrf.zone) {
            Some(0) => Zone::Default,
            Some(number) => Zone::Vrfs(number),
            None => Zone::Nowhere,
        }
    }
}
