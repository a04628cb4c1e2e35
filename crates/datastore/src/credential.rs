//! The `Authorization` header, and the re-reading of token files that rotate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

/// How long a token that was read from a file is used before the file is read again.
///
/// A kubelet renews a token at four fifths of its life, which is at least ten minutes.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

/// What goes into the `Authorization` header; its `Debug` form says nothing secret.
#[derive(Clone)]
pub(crate) struct Credential(Option<Kind>);

#[derive(Clone)]
enum Kind {
    Fixed(HeaderValue),
    File(Arc<TokenFile>),
}

struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Credential {
    /// Returns a credential that sends no header: anonymous, or a client certificate.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Returns a credential that sends `token`.
    pub(crate) fn token(token: &SecretString) -> Result<Self, String> {
        Ok(Self(Some(Kind::Fixed(bearer(token.expose_secret())?))))
    }

    /// Returns a credential that sends `user` and `password` (RFC 7617).
    pub(crate) fn basic(user: &str, password: &SecretString) -> Result<Self, String> {
        let pair = format!("{user}:{}", password.expose_secret());
        let text = base64::engine::general_purpose::STANDARD.encode(pair);
        Ok(Self(Some(Kind::Fixed(secret_header(&format!("Basic {text}"))?))))
    }

    /// Returns a credential that sends what the file at `path` holds at the time.
    pub(crate) fn token_file(path: PathBuf) -> Result<Self, String> {
        let token = read(&path)?;
        let last = Mutex::new(Some((token, Instant::now())));
        Ok(Self(Some(Kind::File(Arc::new(TokenFile { path, last })))))
    }

    /// Returns the header to send, reading a token file that has not been read for a minute.
    ///
    /// A file that cannot be read any more leaves the last token in use.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        match self.0.as_ref()? {
            Kind::Fixed(value) => Some(value.clone()),
            Kind::File(file) => file.header(Instant::now()),
        }
    }

    /// Returns whether a new token may be found by reading a file again.
    pub(crate) fn may_renew(&self) -> bool {
        matches!(self.0, Some(Kind::File(_)))
    }

    /// Makes the next [`Credential::header`] read the token file, because the server said 401.
    pub(crate) fn refuse(&self) {
        if let Some(Kind::File(file)) = &self.0 {
            let mut last = file.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, read)) = last.as_mut() {
                *read = read.checked_sub(TOKEN_FILE_PERIOD).unwrap_or(*read);
            }
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.0 {
            None => "Credential(none)",
            Some(Kind::Fixed(_)) => "Credential(fixed)",
            Some(Kind::File(_)) => "Credential(file)",
        })
    }
}

impl TokenFile {
    fn header(&self, now: Instant) -> Option<HeaderValue> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last
            .as_ref()
            .is_none_or(|(_, read)| now.saturating_duration_since(*read) >= TOKEN_FILE_PERIOD);
        if is_due {
            match read(&self.path) {
                Ok(token) => *last = Some((token, now)),
                Err(problem) => tracing::warn!(problem, "keeping the last token"),
            }
        }
        last.as_ref().map(|(value, _)| value.clone())
    }
}

fn read(path: &Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("the token file {} cannot be read ({error}); correct tokenFile", path.display())
    })?;
    bearer(&text)
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let token = token.trim();
    if token.is_empty() {
        return Err("the token is empty; put a service account token there".to_owned());
    }
    secret_header(&format!("Bearer {token}"))
}

/// Marks the value so that neither logs nor header compression keep it.
fn secret_header(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        "the token or password holds a character that no HTTP header may hold; correct it"
            .to_owned()
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(credential: &Credential) -> String {
        credential.header().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn sends_a_token_without_its_line_end() {
        let credential = Credential::token(&SecretString::from("abc\n")).unwrap();
        assert_eq!(text(&credential), "Bearer abc");
    }

    #[test]
    fn sends_a_password_in_base64() {
        let credential = Credential::basic("user", &SecretString::from("pass")).unwrap();
        assert_eq!(text(&credential), "Basic dXNlcjpwYXNz");
    }

    #[test]
    fn refuses_an_empty_token_and_control_characters() {
        for bad in ["", " \n", "a\u{1}b"] {
            assert!(Credential::token(&SecretString::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reads_a_token_file_again_after_a_minute() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let credential = Credential::token_file(file.path().to_owned()).unwrap();
        std::fs::write(file.path(), "two\n").unwrap();
        assert_eq!(text(&credential), "Bearer one", "within the minute");
        let Some(Kind::File(token)) = &credential.0 else { panic!("not a file") };
        let later = Instant::now() + TOKEN_FILE_PERIOD;
        assert_eq!(token.header(later).unwrap().to_str().unwrap(), "Bearer two");
    }

    #[test]
    fn reads_a_token_file_again_after_a_refusal_and_survives_its_removal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let credential = Credential::token_file(file.path().to_owned()).unwrap();
        std::fs::write(file.path(), "two").unwrap();
        credential.refuse();
        assert_eq!(text(&credential), "Bearer two");
        drop(file);
        credential.refuse();
        assert_eq!(text(&credential), "Bearer two");
    }

    #[test]
    fn shows_no_secret() {
        let credential = Credential::token(&SecretString::from("canary")).unwrap();
        let shown = format!("{credential:?} {:?}", credential.header());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
