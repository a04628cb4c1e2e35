//! The table of parameters: one row yields a field, its reading and its manual entry.

use crate::source::{Problem, Sources};
use crate::value::Setting;

/// What a setting is called in each source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Names {
    /// A setting of Felix: a field, and `FELIX_` with its name in upper case.
    Felix(&'static str),
    /// The same where Felix's own name, the second one, differs from the field's.
    FelixAs(&'static str, &'static str),
    /// An environment variable only.
    Variable(&'static str),
}

impl Names {
    /// Returns the field of `FelixConfiguration`, if there is one.
    #[must_use]
    pub const fn field(self) -> Option<&'static str> {
        match self {
            Self::Felix(field) | Self::FelixAs(field, _) => Some(field),
            Self::Variable(_) => None,
        }
    }

    /// Returns the environment variables, the usual one first.
    #[must_use]
    pub fn variables(self) -> Vec<String> {
        let variable = |key: &String| format!("FELIX_{key}");
        match self {
            Self::Felix(_) | Self::FelixAs(..) => self.file_keys().iter().map(variable).collect(),
            Self::Variable(name) => vec![name.to_owned()],
        }
    }

    /// Returns the keys in `felix.cfg`, in upper case, the usual one first.
    pub(crate) fn file_keys(self) -> Vec<String> {
        match self {
            Self::Felix(field) => vec![field.to_uppercase()],
            Self::FelixAs(field, own) => vec![own.to_uppercase(), field.to_uppercase()],
            Self::Variable(_) => Vec::new(),
        }
    }
}

/// Whether anything acts upon a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// The daemon acts upon it.
    Used,
    /// It is checked, and nothing acts upon it yet.
    Accepted,
}

/// One row of the table, as the manual shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameter {
    /// What it is called.
    pub names: Names,
    /// What values are allowed.
    pub allowed: String,
    /// The value where no source has one.
    pub default: String,
    /// Whether anything acts upon it.
    pub usage: Usage,
    /// What it does.
    pub doc: String,
}

/// A part of the table, which is a struct and a chapter of the manual.
pub trait Group: Sized {
    /// The heading in the manual.
    const TITLE: &'static str;

    /// Returns the rows.
    fn parameters() -> Vec<Parameter>;

    /// Reads all fields, adding what is wrong to `problems`.
    fn read(sources: &Sources, problems: &mut Vec<Problem>) -> Self;
}

/// Reads one setting; a value that is refused is a problem and leaves the default.
pub(crate) fn read<T: Setting>(
    sources: &Sources,
    names: Names,
    default: T,
    problems: &mut Vec<Problem>,
) -> T {
    let Some((place, value)) = sources.find(names) else { return default };
    if let Some(setting) = T::from_json(&value) {
        return setting;
    }
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    problems.push(Problem::Invalid {
        place,
        value,
        allowed: T::allowed(),
        default: default.show(),
    });
    default
}

/// Joins the lines of a documentation comment.
pub(crate) fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Declares a group: `field: Type = default, Names, Usage;` after its documentation.
macro_rules! group {
    (
        $(#[$meta:meta])*
        $group:ident, $title:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:expr, $names:expr, $usage:ident;
            )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $group {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::table::Group for $group {
            const TITLE: &'static str = $title;

            fn parameters() -> Vec<$crate::table::Parameter> {
                vec![$({
                    let default: $type = $default;
                    $crate::table::Parameter {
                        names: $names,
                        allowed: <$type as $crate::value::Setting>::allowed(),
                        default: $crate::value::Setting::show(&default),
                        usage: $crate::table::Usage::$usage,
                        doc: $crate::table::doc(&[$($doc),+]),
                    }
                },)+]
            }

            fn read(
                sources: &$crate::source::Sources,
                problems: &mut Vec<$crate::source::Problem>,
            ) -> Self {
                Self { $($field: $crate::table::read(sources, $names, $default, problems),)+ }
            }
        }
    };
}
pub(crate) use group;
