//! Label selectors: `labelSelector` of a request, as apimachinery's `labels.Parse` reads it.

#![expect(clippy::wildcard_enum_match_arm, reason = "a token that does not fit is an error")]

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::name;
use crate::{Object, Reason, Status, quote};

const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// A conjunction of requirements on the labels of an object; none matches everything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Labels {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Test {
    Exists,
    DoesNotExist,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Open,
    Identifier,
}

impl Labels {
    /// Parses the text of a request's `labelSelector`.
    ///
    /// # Errors
    ///
    /// [`Status`] 400 as Kubernetes words it.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let parsed = Parser::new(text).parse();
        let requirements =
            parsed.map_err(|message| Status::new(400, Reason::BadRequest, message))?;
        Ok(Self { requirements })
    }

    /// Returns whether every object matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Returns whether an object's labels meet all requirements.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        let labels = object.metadata.get("labels").and_then(Value::as_object);
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = labels.and_then(|labels| labels.get(&self.key)).and_then(Value::as_str);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Greater(limit) => number().is_some_and(|number| number > *limit),
            Test::Less(limit) => number().is_some_and(|number| number < *limit),
        }
    }

    fn new(key: &str, operator: Token, values: BTreeSet<String>) -> Result<Self, String> {
        let mut errors = Vec::new();
        let mut number = 0;
        if matches!(operator, Token::Greater | Token::Less) {
            for value in &values {
                match value.parse() {
                    Ok(parsed) => number = parsed,
                    Err(_) => errors.push(format!(
                        "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must \
                         be an integer",
                        quote(value)
                    )),
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            let problems = name::label_value(value);
            if !problems.is_empty() {
                let (value, problems) = (quote(value), problems.join("; "));
                errors.push(format!("values[{index}][{key}]: Invalid value: {value}: {problems}"));
            }
        }
        if let Some(message) = aggregate(&errors) {
            return Err(message);
        }
        let test = match operator {
            Token::Greater => Test::Greater(number),
            Token::Less => Test::Less(number),
            Token::NotIn | Token::NotEquals => Test::NotIn(values),
            _ => Test::In(values),
        };
        Ok(Self { key: key.to_owned(), test })
    }
}

/// Joins errors as Go's `Aggregate` does.
fn aggregate(errors: &[String]) -> Option<String> {
    match errors {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// A token and its text.
type Item<'a> = (Token, &'a str);

struct Parser<'a> {
    items: std::vec::IntoIter<Item<'a>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { items: scan(text).into_iter() }
    }

    fn peek(&self) -> Item<'a> {
        as_value(self.items.as_slice().first().copied().unwrap_or((Token::End, "")))
    }

    fn next(&mut self) -> Item<'a> {
        as_value(self.next_operator())
    }

    /// Takes the next token, where `in` and `notin` are operators.
    fn next_operator(&mut self) -> Item<'a> {
        self.items.next().unwrap_or((Token::End, ""))
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {}
                (Token::End, _) => return Ok(requirements),
                (_, text) => {
                    return Err(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
            let requirement = self.requirement();
            requirements.push(
                requirement.map_err(|error| format!("unable to parse requirement: {error}"))?,
            );
            match self.next() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => {}
                (_, text) => {
                    return Err(format!("found '{text}', expected: ',' or 'end of string'"));
                }
            }
            let (token, text) = self.peek();
            if !matches!(token, Token::Identifier | Token::Not) {
                return Err(format!("found '{text}', expected: identifier after ','"));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_negated = self.peek().0 == Token::Not;
        if is_negated {
            self.next();
        }
        let (token, key) = self.next();
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = name::qualified_name(key);
        if !problems.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {}", quote(key), problems.join("; ")));
        }
        let is_bare = matches!(self.peek().0, Token::End | Token::Comma);
        if is_negated || is_bare {
            let test = if is_negated { Test::DoesNotExist } else { Test::Exists };
            return Ok(Requirement { key: key.to_owned(), test });
        }
        let (operator, text) = self.next_operator();
        let values = match operator {
            Token::In | Token::NotIn => self.values()?,
            Token::Equals | Token::NotEquals | Token::Greater | Token::Less => self.exact()?,
            _ => return Err(format!("found '{text}', expected: {BINARY_OPERATORS}")),
        };
        Requirement::new(key, operator, values)
    }

    fn exact(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            (Token::Identifier, text) => Ok(BTreeSet::from([text.to_owned()])),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let values = match self.peek() {
            (Token::Close, _) => BTreeSet::from([String::new()]),
            (Token::Identifier | Token::Comma, _) => self.list()?,
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        };
        self.next(); // the closing parenthesis, which both saw
        Ok(values)
    }

    /// Reads up to the closing parenthesis; a missing value is the empty one.
    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, text) => {
                    values.insert(text.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.next();
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }
}

/// Reads `in` and `notin` as identifiers, where no operator can stand.
fn as_value((token, text): Item<'_>) -> Item<'_> {
    match token {
        Token::In | Token::NotIn => (Token::Identifier, text),
        _ => (token, text),
    }
}

fn scan(text: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let special = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];
        let length = match special.into_iter().find(|special| rest.starts_with(special)) {
            Some(special) => special.len(),
            None => rest.find(|c| is_space(c) || is_special(c)).unwrap_or(rest.len()),
        };
        let Some((word, after)) = rest.split_at_checked(length.max(first.len_utf8())) else {
            break;
        };
        items.push((token(word), word));
        rest = after.trim_start_matches(is_space);
    }
    items
}

fn token(word: &str) -> Token {
    match word {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "=" | "==" => Token::Equals,
        "!=" => Token::NotEquals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "in" => Token::In,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => Token::Identifier,
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

const fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}
