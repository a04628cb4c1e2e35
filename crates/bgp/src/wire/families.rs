//! A set of address families, small enough to be copied.

use model::net::Family;

/// For which families something holds.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Families {
    has_v4: bool,
    has_v6: bool,
}

impl Families {
    /// No family.
    pub const NONE: Self = Self { has_v4: false, has_v6: false };
    /// Both families.
    pub const ALL: Self = Self { has_v4: true, has_v6: true };

    /// Does it hold for `family`?
    #[must_use]
    pub const fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.has_v4,
            Family::V6 => self.has_v6,
        }
    }

    /// Does it hold for no family?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.has_v4 && !self.has_v6
    }

    /// Returns the set with `family` in it.
    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        match family {
            Family::V4 => Self { has_v4: true, ..self },
            Family::V6 => Self { has_v6: true, ..self },
        }
    }

    /// Returns the families, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> + use<> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::NONE, Self::with)
    }
}
