//! Types of settings: what text and JSON they accept, and how the manual shows them.

mod choice;
mod feature;
mod list;
mod net;
mod scalar;

pub use choice::{
    Backend, ChainInsertMode, DeniedConnections, DropAction, EncapsulationMode, EndpointAction,
    IptablesBackend, L2Reachability, LocalReporter, LogSeverity, Mode, NatExclusions, NftablesMode,
    PassAction, ProgramClusterRoutes, RouteSource, ServiceLoopPrevention, SourceDestinationCheck,
    SourceSpoofing, Switch,
};
pub use feature::Features;
pub use list::{NumberRange, PortRange, Protocol, ProtocolPort};
pub use net::{AddressMethod, AddressSource, IfPrefix, PoolSource, RouterId};
pub use scalar::{Mask, Number, Pattern};

use serde_json::Value;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Reads it as the environment and `felix.cfg` write it.
    #[must_use]
    fn from_text(text: &str) -> Option<Self>;

    /// Reads it as a `FelixConfiguration` writes it; numbers and truth values may be text.
    #[must_use]
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::from_text(text),
            Value::Bool(_) | Value::Number(_) => Self::from_text(&value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Returns what is allowed, for people: continues "use …".
    fn allowed() -> String;

    /// Returns the value as it would be written.
    fn show(&self) -> String;
}

/// A setting that may stay open; the meaning of that is in its documentation.
impl<T: Setting> Setting for Option<T> {
    fn from_text(text: &str) -> Option<Self> {
        T::from_text(text).map(Some)
    }

    fn from_json(value: &Value) -> Option<Self> {
        T::from_json(value).map(Some)
    }

    fn allowed() -> String {
        T::allowed()
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "not set".to_owned(), Setting::show)
    }
}
