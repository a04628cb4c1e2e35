//! From characters to tokens.

use crate::error::{InvalidSelector, Problem};

/// A token and where it stands, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What a token is. Only the parser knows whether a word is a label or a keyword.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind<'a> {
    Word(&'a str),
    Text(&'a str),
    Open,
    Close,
    OpenSet,
    CloseSet,
    Comma,
    Not,
    Equal,
    NotEqual,
    And,
    Or,
    End,
}

impl Kind<'_> {
    /// Returns how an error message calls it.
    pub(crate) fn describe(self) -> String {
        let symbol = match self {
            Self::Word(word) => word,
            Self::Text(text) => return format!("the text '{text}'"),
            Self::Open => "(",
            Self::Close => ")",
            Self::OpenSet => "{",
            Self::CloseSet => "}",
            Self::Comma => ",",
            Self::Not => "!",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::And => "&&",
            Self::Or => "||",
            Self::End => return "the end".to_owned(),
        };
        format!("`{symbol}`")
    }
}

/// Symbols; those that start with another one come before it.
const SYMBOLS: [(&str, Kind<'static>); 10] = [
    ("!=", Kind::NotEqual),
    ("!", Kind::Not),
    ("==", Kind::Equal),
    ("&&", Kind::And),
    ("||", Kind::Or),
    ("(", Kind::Open),
    (")", Kind::Close),
    ("{", Kind::OpenSet),
    ("}", Kind::CloseSet),
    (",", Kind::Comma),
];

/// Takes tokens off the front of a text.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    /// Takes the next token; at the end, [`Kind::End`] for ever.
    pub(crate) fn next(&mut self) -> Result<Token<'a>, InvalidSelector> {
        let rest = self.rest().trim_start_matches([' ', '\t']);
        let start = self.text.len().saturating_sub(rest.len());
        let (kind, len) = self.scan(rest, start)?;
        let end = start.saturating_add(len);
        self.offset = end;
        Ok(Token { kind, start, end })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    /// Reads the token that `rest` starts with and its length in bytes.
    fn scan(&self, rest: &'a str, start: usize) -> Result<(Kind<'a>, usize), InvalidSelector> {
        let Some(first) = rest.chars().next() else { return Ok((Kind::End, 0)) };
        if first == '"' || first == '\'' {
            let unterminated = || self.error(start, Problem::Unterminated { quote: first });
            let behind = rest.get(1..).unwrap_or_default();
            let (text, _) = behind.split_once(first).ok_or_else(unterminated)?;
            return Ok((Kind::Text(text), text.len().saturating_add(2)));
        }
        let word_len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word_len > crate::MAX_LABEL_LEN {
            return Err(self.error(start, Problem::LongLabel(word_len)));
        }
        if word_len > 0 {
            return Ok((Kind::Word(rest.get(..word_len).unwrap_or_default()), word_len));
        }
        let symbol = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol));
        symbol.map(|(symbol, kind)| (*kind, symbol.len())).ok_or_else(|| {
            let expected = match first {
                '=' => "`==`",
                '&' => "`&&`",
                '|' => "`||`",
                _ => "a label, a quoted text or an operator",
            };
            self.error(start, Problem::Unexpected { found: format!("{first:?}"), expected })
        })
    }

    fn error(&self, offset: usize, problem: Problem) -> InvalidSelector {
        InvalidSelector::at(self.text, offset, problem)
    }
}

/// May `c` stand in the name of a label?
const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
