//! Files with objects: YAML or JSON, one or many, alone or in lists.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Error;

/// What files of a folder are read.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads the objects of a file, of standard input for `-`, or of the files of a folder.
///
/// # Errors
///
/// [`Error::File`] and [`Error::Unreadable`] with the file; [`Error::Refused`] if there is none.
pub(crate) fn read(
    path: &Path,
    is_recursive: bool,
    skips_empty: bool,
) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|source| Error::File { action: "read", path: path.to_owned(), source })?;
        objects.extend(parse(path, &text)?);
    } else {
        for file in files(path, is_recursive)? {
            let read = std::fs::read_to_string(&file);
            let text =
                read.map_err(|source| Error::File { action: "read", path: file.clone(), source })?;
            objects.extend(parse(&file, &text)?);
        }
    }
    if objects.is_empty() && !skips_empty {
        let problem = "has no object: name another file, or use --skip-empty".to_owned();
        return Err(Error::Unreadable { path: path.to_owned(), problem });
    }
    Ok(objects)
}

/// Returns the files of a folder, in the order of their names; a file is its own.
fn files(path: &Path, is_recursive: bool) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let is_wanted = entry
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        if entry.is_dir() && is_recursive {
            found.extend(files(&entry, true)?);
        } else if entry.is_file() && is_wanted {
            found.push(entry);
        }
    }
    Ok(found)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Value>, Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let problem = format!("is neither YAML nor JSON: {error}");
        Error::Unreadable { path: path.to_owned(), problem }
    })?;
    let mut objects = Vec::new();
    for document in documents {
        match (&document, document.get("items").and_then(Value::as_array)) {
            (Value::Null, _) => {}
            (_, Some(items)) => objects.extend(items.clone()),
            (Value::Array(list), None) => objects.extend(list.clone()),
            (_, None) => objects.push(document),
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "kind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let kinds = |text: &str| -> Vec<String> {
            let objects = parse(Path::new("x"), text).unwrap();
            objects.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(text), ["A", "B", "C"]);
        assert_eq!(kinds("[{\"kind\": \"A\"}, {\"kind\": \"B\"}]"), ["A", "B"]);
        assert!(parse(Path::new("x"), "kind: [").is_err());
    }

    #[test]
    fn files_of_folders_are_read_and_an_empty_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a.yaml"), "kind: A").unwrap();
        std::fs::write(dir.path().join("sub/b.json"), "{\"kind\": \"B\"}").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not: read").unwrap();
        assert_eq!(read(dir.path(), false, false).unwrap().len(), 1);
        assert_eq!(read(dir.path(), true, false).unwrap().len(), 2);
        let empty = dir.path().join("empty.yaml");
        std::fs::write(&empty, "").unwrap();
        assert!(read(&empty, false, false).unwrap_err().to_string().contains("--skip-empty"));
        assert_eq!(read(&empty, false, true).unwrap(), Vec::<Value>::new());
    }
}
