//! Acting for another: the headers `Impersonate-User` and `Impersonate-Group`.

use http::HeaderMap;

use super::User;
use super::guard::Guard;
use crate::http::info::{Info, Resource};
use crate::status::Status;

const PREFIX: &str = "impersonate-";

impl Guard {
    /// Returns the user for whom a request is to be judged: the sender, or whom it names.
    ///
    /// # Errors
    ///
    /// 403 unless the sender may impersonate that user and those groups, 400 for headers
    /// that are not known, and for groups without a user.
    pub(crate) async fn impersonate(
        &self,
        user: User,
        headers: &HeaderMap,
    ) -> Result<User, Status> {
        let Some(wanted) = wanted(headers)? else { return Ok(user) };
        let (mut requests, mut groups) = (vec![as_user(&wanted.name)], wanted.groups);
        requests.extend(groups.iter().map(|group| request("groups", "", group)));
        for request in &requests {
            self.authorize(&user, request).await?;
        }
        let account = User::of_service_account(&wanted.name).filter(|_| groups.is_empty());
        if let Some(account) = account {
            return Ok(account);
        }
        if !groups.iter().any(|group| group == User::AUTHENTICATED) {
            groups.push(User::AUTHENTICATED.to_owned());
        }
        Ok(User { name: wanted.name, uid: String::new(), groups })
    }
}

struct Wanted {
    name: String,
    groups: Vec<String>,
}

fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, Status> {
    let (mut name, mut groups) = (None, Vec::new());
    for (header, value) in headers.iter().filter(|(header, _)| header.as_str().starts_with(PREFIX))
    {
        let value = value.to_str().unwrap_or_default().to_owned();
        match header.as_str() {
            "impersonate-user" => name = Some(value),
            "impersonate-group" => groups.push(value),
            other => {
                let message = format!("{other} is not known; leave it out");
                return Err(Status::bad_request(message));
            }
        }
    }
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok(Some(Wanted { name, groups })),
        None if groups.is_empty() => Ok(None),
        None => Err(Status::bad_request("requested groups without impersonating a user")),
    }
}

fn as_user(name: &str) -> Info {
    match User::account_of(name) {
        Some((namespace, account)) => request("serviceaccounts", namespace, account),
        None => request("users", "", name),
    }
}

fn request(plural: &str, namespace: &str, name: &str) -> Info {
    let resource = Resource {
        version: "v1".to_owned(),
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        is_object: true,
        ..Resource::default()
    };
    Info { path: String::new(), verb: "impersonate", resource: Some(resource) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&'static str, &str)]) -> Result<Option<(String, Vec<String>)>, u16> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let wanted = wanted(&pairs.collect()).map_err(|status| status.code)?;
        Ok(wanted.map(|wanted| (wanted.name, wanted.groups)))
    }

    #[test]
    fn takes_users_with_groups_and_no_groups_alone() {
        assert_eq!(named(&[]), Ok(None));
        let (user, group) = (("impersonate-user", "a"), ("impersonate-group", "b"));
        assert_eq!(named(&[user]), Ok(Some(("a".to_owned(), vec![]))));
        assert_eq!(named(&[user, group]), Ok(Some(("a".to_owned(), vec!["b".to_owned()]))));
        assert_eq!(named(&[group]), Err(400));
        assert_eq!(named(&[user, ("impersonate-extra-scopes", "x")]), Err(400));
    }

    #[test]
    fn asks_for_accounts_by_their_namespace() {
        let asked = as_user("system:serviceaccount:one:two").resource.unwrap();
        assert_eq!(
            (&*asked.plural, &*asked.namespace, &*asked.name),
            ("serviceaccounts", "one", "two")
        );
        assert_eq!(as_user("somebody").resource.unwrap().plural, "users");
    }
}
