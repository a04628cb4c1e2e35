//! Looks for secrets where nothing of them may be: in every form that programs write bytes in.
//!
//! Who has searched and found nothing has proved something only if the search finds what is there:
//! plant another secret of the same kind, and look for it in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

use crate::Error;
use crate::api_access::Api;
use crate::rest::Request;

/// What is compared at once.
const WORD: usize = 8;
/// The shortest needle: it covers a whole word of the haystack wherever it begins.
const SHORTEST: usize = WORD * 2 - 1;
/// How long a secret must be: nobody hits that many bytes by chance.
const ENOUGH: usize = 16;
/// The most that is read of a file. None here comes near.
const LIMIT: u64 = 1 << 30;

/// Secrets to look for, in all their forms.
#[derive(Clone, Debug, Default)]
pub struct Search {
    needles: Vec<Needle>,
    /// By a word of a needle: which needles have it, and where.
    words: BTreeMap<[u8; WORD], Vec<(usize, usize)>>,
}

#[derive(Clone, Debug)]
struct Needle {
    bytes: Vec<u8>,
    form: &'static str,
    secret: String,
}

/// A secret that was found; says which one and in what form, and nothing of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Found {
    /// Where.
    pub place: String,
    /// What the secret is called.
    pub secret: String,
    /// How it was written.
    pub form: &'static str,
}

impl Search {
    /// Adds a secret by a name for it: a key, or as much of it as is the same wherever it is written.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it is so short that it would be found by chance.
    pub fn add(&mut self, name: &str, secret: &[u8]) -> Result<(), Error> {
        if secret.len() < ENOUGH {
            let wrong = format!("{name} has {} bytes: at least {ENOUGH} are needed", secret.len());
            return Err(Error::wrong(wrong));
        }
        for (form, bytes) in forms(secret) {
            let at = self.needles.len();
            for offset in 0..WORD {
                let word = bytes.get(offset..).and_then(<[u8]>::first_chunk::<WORD>);
                let word = word.filter(|_| bytes.len() >= SHORTEST);
                let word = word.ok_or_else(|| Error::wrong(format!("{form} is too short")))?;
                self.words.entry(*word).or_default().push((at, offset));
            }
            self.needles.push(Needle { bytes, form, secret: name.to_owned() });
        }
        Ok(())
    }

    /// Returns what is in `haystack`, once for each secret and form.
    #[must_use]
    pub fn find(&self, place: &str, haystack: &[u8]) -> BTreeSet<Found> {
        let mut found = BTreeSet::new();
        // A needle covers one of these words whole, whatever comes before it.
        for (number, word) in haystack.as_chunks::<WORD>().0.iter().enumerate() {
            for (at, offset) in self.words.get(word).into_iter().flatten() {
                let Some(needle) = self.needles.get(*at) else { continue };
                let start = number.saturating_mul(WORD).checked_sub(*offset);
                let there = start.and_then(|start| haystack.get(start..));
                if there.is_some_and(|there| there.starts_with(&needle.bytes)) {
                    let (secret, form) = (needle.secret.clone(), needle.form);
                    found.insert(Found { place: place.to_owned(), secret, form });
                }
            }
        }
        found
    }

    /// Searches all files below a directory, but those of `skipped` directories; returns also how
    /// many files there were.
    ///
    /// # Errors
    ///
    /// [`Error::File`] of one that cannot be read; one that is gone meanwhile is none.
    pub fn files(&self, dir: &Path, skipped: &[&Path]) -> Result<(usize, BTreeSet<Found>), Error> {
        let (mut count, mut found) = (0_usize, BTreeSet::new());
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(Error::file(&dir))?,
            };
            for entry in entries {
                let entry = entry.map_err(Error::file(&dir))?;
                let (path, kind) = (entry.path(), entry.file_type().map_err(Error::file(&dir))?);
                if kind.is_dir() && !skipped.contains(&path.as_path()) {
                    dirs.push(path);
                } else if kind.is_file() {
                    let Some(bytes) = read(&path)? else { continue };
                    count = count.saturating_add(1);
                    found.extend(self.find(&path.to_string_lossy(), &bytes));
                }
            }
        }
        Ok((count, found))
    }

    /// Searches all objects of all kinds that the API lists; returns also how many kinds there were.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn objects(&self, api: &Api) -> Result<(usize, BTreeSet<Found>), Error> {
        let (mut kinds, mut found) = (0_usize, BTreeSet::new());
        for root in versions(api)? {
            let list = api.send(Request::get(&root))?.success()?;
            for plural in listable(&list) {
                let path = format!("{root}/{plural}");
                let answer = api.send(Request::get(&path))?;
                answer.success()?;
                kinds = kinds.saturating_add(1);
                found.extend(self.find(&path, &answer.body));
            }
        }
        Ok((kinds, found))
    }
}

/// Returns bytes in hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.concat()
}

/// Returns a file's content; nothing if the file is gone.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(file) if file.len() > LIMIT => {
            return Err(Error::wrong(format!("{} is too long to search", path.display())));
        }
        found => {
            found.map_err(Error::file(path))?;
        }
    }
    std::fs::read(path).map(Some).map_err(Error::file(path))
}

/// Returns where the server has kinds: `/api/v1`, and each version of each group.
fn versions(api: &Api) -> Result<Vec<String>, Error> {
    let groups = api.send(Request::get("/apis"))?.success()?;
    let groups = groups.get("groups").and_then(Value::as_array);
    let versions = groups.into_iter().flatten().filter_map(|group| group.get("versions"));
    let versions = versions.filter_map(Value::as_array).flatten();
    let names = versions.filter_map(|version| version.get("groupVersion")?.as_str());
    Ok(["/api/v1".to_owned()]
        .into_iter()
        .chain(names.map(|name| format!("/apis/{name}")))
        .collect())
}

/// Returns the kinds of a list of resources (meta/v1 `APIResourceList`) that can be listed.
fn listable(list: &Value) -> Vec<&str> {
    let resources = list.get("resources").and_then(Value::as_array);
    let is_listable = |resource: &&Value| {
        let verbs = resource.get("verbs").and_then(Value::as_array);
        verbs.into_iter().flatten().any(|verb| verb == "list")
    };
    let named = resources.into_iter().flatten().filter(is_listable);
    named.filter_map(|resource| resource.get("name")?.as_str()).collect()
}

/// Returns all forms that a secret may be written in.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let pairs: Vec<String> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let hex = |separator: &str| pairs.join(separator);
    let numbers = |separator: &str| {
        let numbers: Vec<String> = secret.iter().map(ToString::to_string).collect();
        numbers.join(separator)
    };
    let mut forms = vec![
        ("the bytes", secret.to_vec()),
        ("hex", hex("").into_bytes()),
        ("HEX", hex("").to_uppercase().into_bytes()),
        ("hex, with colons", hex(":").into_bytes()),
        ("HEX, with colons", hex(":").to_uppercase().into_bytes()),
        ("hex, with spaces", hex(" ").into_bytes()),
        ("a list of numbers", numbers(", ").into_bytes()),
        ("a list of numbers, dense", numbers(",").into_bytes()),
        ("bytes, escaped", secret.escape_ascii().to_string().into_bytes()),
    ];
    // Base64 of more than the secret depends on how much comes before it, and Secrets have base64
    // of what may be base64 already.
    for shift in 0..3 {
        let text = inner(&STANDARD, secret, shift);
        let escaped = String::from_utf8_lossy(&text).replace('/', "\\/");
        forms.push(("base64, escaped in JSON", escaped.into_bytes()));
        forms.push(("base64 for URLs", inner(&URL_SAFE, secret, shift)));
        forms.push(("base64 of hex", inner(&STANDARD, hex("").as_bytes(), shift)));
        for again in 0..3 {
            forms.push(("base64 of base64", inner(&STANDARD, &text, again)));
        }
        forms.push(("base64", text));
    }
    forms
}

/// Returns the characters of base64 that `bytes` alone determine, where `shift` others come first.
fn inner(engine: &impl base64::Engine, bytes: &[u8], shift: usize) -> Vec<u8> {
    let padded: Vec<u8> = std::iter::repeat_n(0, shift).chain(bytes.iter().copied()).collect();
    let text = engine.encode(&padded).into_bytes();
    let first = shift.saturating_mul(8).div_ceil(6);
    let last = padded.len().saturating_mul(8).checked_div(6).unwrap_or_default();
    text.get(first..last).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn secret(first: u8) -> Vec<u8> {
        (0..32_u8).map(|number| number.wrapping_mul(37).wrapping_add(first)).collect()
    }

    fn search() -> Search {
        let mut search = Search::default();
        search.add("a", &secret(200)).unwrap();
        search.add("b", &secret(63)).unwrap();
        // A part is found in all that has the whole.
        search.add("part", secret(99).get(1..31).unwrap()).unwrap();
        search
    }

    #[test]
    fn every_form_is_found_wherever_it_is() {
        let search = search();
        for before in 0..17 {
            for (form, bytes) in forms(&secret(63)) {
                let noise = vec![b'A'; before];
                let text = [noise.as_slice(), &bytes, &noise].concat();
                let found = search.find("here", &text);
                let expected = Found { place: "here".to_owned(), secret: "b".to_owned(), form };
                assert!(found.contains(&expected), "{form} behind {before}: {found:?}");
            }
        }
    }

    #[test]
    fn a_part_is_found_in_every_form_of_the_whole() {
        for (form, bytes) in forms(&secret(99)) {
            let found = search().find("", &bytes);
            assert!(found.iter().any(|found| found.secret == "part"), "{form}: {found:?}");
        }
    }

    #[test]
    fn base64_of_more_than_the_secret_is_found() {
        for before in 0..9 {
            for after in 0..4 {
                let message = [vec![7; before], secret(200), vec![9; after]].concat();
                let found = search().find("", STANDARD.encode(&message).as_bytes());
                assert!(found.iter().any(|found| found.form == "base64"), "{before} {after}");
                let twice = STANDARD.encode(secret(200));
                let twice = [vec![b'k'; before], twice.into_bytes(), vec![b'"'; after]].concat();
                let found = search().find("", STANDARD.encode(&twice).as_bytes());
                assert!(found.iter().any(|found| found.form == "base64 of base64"), "{before}");
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        let other = secret(64);
        for (form, bytes) in forms(&other) {
            assert!(search().find("", &bytes).is_empty(), "{form}");
        }
        let part = secret(63);
        assert!(search().find("", part.get(..31).unwrap()).is_empty(), "a part of it");
        assert!(search().find("", &[]).is_empty());
    }

    #[test]
    fn files_are_searched_below_directories_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (deep, left) = (dir.path().join("a/b"), dir.path().join("bin"));
        for dir in [&deep, &left] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join("file"), secret(63)).unwrap();
        }
        std::os::unix::fs::symlink("file", deep.join("link")).unwrap();
        let (count, found) = search().files(dir.path(), &[&left]).unwrap();
        let places: Vec<_> = found.iter().map(|found| found.place.as_str()).collect();
        assert_eq!((count, places), (1, vec![deep.join("file").to_str().unwrap()]));
    }

    #[test]
    fn a_secret_is_shown_by_its_name_alone() {
        let found = search().find("x", &secret(63));
        let shown = format!("{found:?}");
        assert!(search().find("", shown.as_bytes()).is_empty() && shown.contains("\"b\""));
    }

    #[test]
    fn short_secrets_are_refused() {
        assert!(Search::default().add("short", &[1; ENOUGH - 1]).is_err());
    }
}
