//! Versions of the CNI protocol that we speak (CNI spec §2 "VERSION").

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// A version of the protocol, oldest first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// 0.1.0: one address of each family.
    V0_1_0,
    /// 0.2.0: adds VERSION.
    V0_2_0,
    /// 0.3.0: adds interfaces and any number of addresses.
    V0_3_0,
    /// 0.3.1: the same with errors corrected.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: addresses no longer say their family.
    V1_0_0,
    /// 1.1.0: adds STATUS and GC, and more fields in results.
    V1_1_0,
}

/// A `cniVersion` that we do not speak.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cniVersion `{0}` is not supported: use one of {supported}", supported = supported())]
pub struct UnsupportedVersion(pub String);

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// What a configuration without `cniVersion` means, as in Calico.
    pub const UNSTATED: Self = Self::V0_2_0;

    /// The newest version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Returns the version as a configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Does this version know the CHECK command?
    #[must_use]
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Does this version know the STATUS and GC commands?
    #[must_use]
    pub fn has_status(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl FromStr for Version {
    type Err = UnsupportedVersion;

    fn from_str(text: &str) -> Result<Self, UnsupportedVersion> {
        let is_it = |version: &Self| version.as_str() == text;
        Self::ALL.into_iter().find(is_it).ok_or_else(|| UnsupportedVersion(text.to_owned()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns what VERSION prints; `asked` is the caller's `cniVersion`.
#[must_use]
pub fn version_info(asked: Version) -> Value {
    let supported: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
    json!({ "cniVersion": asked.as_str(), "supportedVersions": supported })
}

fn supported() -> String {
    Version::ALL.map(Version::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_round_trips() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
    }

    #[test]
    fn refuses_other_versions_and_names_ours() {
        let error = "1.2.0".parse::<Version>().unwrap_err().to_string();
        assert_eq!(
            error,
            "cniVersion `1.2.0` is not supported: use one of \
             0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
        );
    }
}
