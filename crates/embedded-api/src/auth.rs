//! Who sends a request, and what they may do: the authority, tokens and RBAC.

pub mod authority;
pub mod files;
pub mod guard;
mod impersonation;
pub mod jwt;
pub(crate) mod rbac;
pub mod secret;

/// Who sent a request: `UserInfo` of authentication/v1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Such as `admin` or `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Empty unless it is a service account.
    pub uid: String,
    /// Such as `system:authenticated`.
    pub groups: Vec<String>,
}

impl User {
    /// The group whose members may do everything.
    pub const MASTERS: &str = "system:masters";
    /// The group of everybody who has shown a valid token.
    const AUTHENTICATED: &str = "system:authenticated";

    /// Returns the holder of the administrator's token.
    #[must_use]
    pub fn admin() -> Self {
        let groups = vec![Self::MASTERS.to_owned(), Self::AUTHENTICATED.to_owned()];
        Self { name: "admin".to_owned(), uid: String::new(), groups }
    }

    /// Returns a service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            Self::AUTHENTICATED.to_owned(),
        ];
        let name = format!("system:serviceaccount:{namespace}:{name}");
        Self { name, uid: uid.to_owned(), groups }
    }

    /// Returns namespace and name of the service account with this user's name.
    fn account_of(name: &str) -> Option<(&str, &str)> {
        name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// Returns the service account with this user's name.
    fn of_service_account(name: &str) -> Option<Self> {
        let (namespace, name) = Self::account_of(name)?;
        Some(Self::service_account(namespace, name, ""))
    }

    /// Returns whether the user may do everything.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == Self::MASTERS)
    }
}
