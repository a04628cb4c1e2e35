//! Reads typed values out of JSON objects, with errors that name the key.

use serde_json::{Map, Value};

use super::InvalidConfig;

/// An object of the configuration, and the path that leads to it.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    path: &'a str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(path: &'a str, object: &'a Map<String, Value>) -> Self {
        Self { path, object }
    }

    /// Returns the value of `key`; `null` is as good as absent.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Returns a text; an empty one is as good as absent.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, InvalidConfig> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| self.wrong(key, "use a text"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Returns a truth value, which Calico also writes as a text.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>, InvalidConfig> {
        let truth = |value: &Value| match (value, value.as_str()) {
            (Value::Bool(truth), _) => Some(*truth),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => None,
        };
        let Some(value) = self.value(key) else { return Ok(None) };
        truth(value).map(Some).ok_or_else(|| self.wrong(key, "use true or false"))
    }

    /// Returns a number between zero and `max`.
    pub(crate) fn number(&self, key: &str, max: u32) -> Result<Option<u32>, InvalidConfig> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number
            .filter(|number| *number <= max)
            .map(Some)
            .ok_or_else(|| self.wrong(key, &format!("use a whole number from 0 to {max}")))
    }

    /// Returns a list of texts; an absent one is empty.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, InvalidConfig> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let texts = |list: &'a Vec<Value>| {
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()
        };
        let list = value.as_array().and_then(texts);
        list.ok_or_else(|| self.wrong(key, "use a list of texts"))
    }

    /// Returns a list of objects; an absent one is empty.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<&'a Map<String, Value>>, InvalidConfig> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let objects =
            |list: &'a Vec<Value>| list.iter().map(Value::as_object).collect::<Option<_>>();
        value
            .as_array()
            .and_then(objects)
            .ok_or_else(|| self.not_a(value, key, "use a list of objects"))
    }

    /// Returns an object; an absent one is `None`.
    pub(crate) fn object(
        &self,
        key: &str,
    ) -> Result<Option<&'a Map<String, Value>>, InvalidConfig> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| self.not_a(value, key, "use an object"))
    }

    /// Returns an error about the value of `key`.
    pub(crate) fn wrong(&self, key: &str, remedy: &str) -> InvalidConfig {
        let path = self.name(key);
        let value = match self.object.get(key) {
            // Keys that hold secrets have no business in a message, whatever is wrong with them.
            Some(_) if is_secret(key) => "***".to_owned(),
            Some(value @ (Value::Object(_) | Value::Array(_))) => kind(value).to_owned(),
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        InvalidConfig::Value { path, value, remedy: remedy.to_owned() }
    }

    /// Returns an error about a value that should be an object; what it holds instead
    /// may be a secret that belongs inside.
    fn not_a(&self, value: &Value, key: &str, remedy: &str) -> InvalidConfig {
        let remedy = remedy.to_owned();
        InvalidConfig::Value { path: self.name(key), value: kind(value).to_owned(), remedy }
    }

    /// Returns the full name of `key`.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn is_secret(key: &str) -> bool {
    ["token", "password", "secret", "key", "cert"].iter().any(|word| key.contains(word))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
