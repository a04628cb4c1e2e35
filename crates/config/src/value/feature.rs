//! What is known of the kernel and of what carries its packets, where administrators know better.

use super::Setting;

/// Features by name, each said to be there or not: `ChecksumOffloadBroken=true`.
///
/// The others that Calico knows are about programs and kernels that are not asked here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features(Vec<(String, bool)>);

/// The feature that is followed.
const CHECKSUM_OFFLOAD_BROKEN: &str = "ChecksumOffloadBroken";

impl Features {
    /// Returns whether checksums of packets in tunnels are spoiled if they are left to the
    /// interface; `None` if nobody has said so.
    #[must_use]
    pub fn is_checksum_offload_broken(&self) -> Option<bool> {
        let said = self.0.iter().rev().find(|(name, _)| name == CHECKSUM_OFFLOAD_BROKEN);
        said.map(|(_, value)| *value)
    }
}

impl Setting for Features {
    fn from_text(text: &str) -> Option<Self> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_owned(), <bool as Setting>::from_text(value.trim())?))
        };
        pairs.map(read).collect::<Option<Vec<_>>>().map(Self)
    }

    fn allowed() -> String {
        "a list with commas such as `ChecksumOffloadBroken=true`".to_owned()
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_feature_is_followed_and_nonsense_is_refused() {
        let broken = |text: &str| Features::from_text(text).map(|f| f.is_checksum_offload_broken());
        assert_eq!(broken(""), Some(None));
        assert_eq!(broken("SNATFullyRandom=true"), Some(None));
        assert_eq!(broken("SNATFullyRandom=true, ChecksumOffloadBroken=false"), Some(Some(false)));
        assert_eq!(broken("ChecksumOffloadBroken=true,"), Some(Some(true)));
        for wrong in ["ChecksumOffloadBroken", "ChecksumOffloadBroken=maybe", "="] {
            assert_eq!(broken(wrong), None, "{wrong}");
        }
    }
}
