//! From tokens to the tree, by recursive descent with a limit.

use std::collections::BTreeSet;

use crate::error::{InvalidSelector, Problem};
use crate::expression::{Comparison, Expression, Membership};
use crate::lexer::{Kind, Lexer, Token};
use crate::{MAX_DEPTH, MAX_LEN};

const OPERAND: &str = "a label, `has(label)`, `all()`, `global()`, `!` or `(`";
const OPERATOR: &str =
    "`==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with` after the label";

/// Parses a whole selector; blank text is `all()`.
pub(crate) fn parse(text: &str) -> Result<Expression, InvalidSelector> {
    if text.len() > MAX_LEN {
        return Err(InvalidSelector::at(text, 0, Problem::TooLong(text.len())));
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    if token.kind == Kind::End {
        return Ok(Expression::All);
    }
    let mut parser = Parser { text, lexer, token };
    let expression = parser.any(0)?;
    if parser.token.kind != Kind::End {
        return Err(parser.unexpected("`&&`, `||` or the end"));
    }
    if expression.depth() > MAX_DEPTH {
        return Err(InvalidSelector::at(text, 0, Problem::TooDeep));
    }
    Ok(expression)
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// The next token, not yet taken.
    token: Token<'a>,
}

impl<'a> Parser<'a> {
    /// Parses operands joined by `||`, with `depth` parentheses open.
    fn any(&mut self, depth: usize) -> Result<Expression, InvalidSelector> {
        let mut parts = vec![self.every(depth)?];
        while self.take(Kind::Or)? {
            parts.push(self.every(depth)?);
        }
        Ok(joined(parts, Expression::Any))
    }

    /// Parses operands joined by `&&`.
    fn every(&mut self, depth: usize) -> Result<Expression, InvalidSelector> {
        let mut parts = vec![self.operand(depth)?];
        while self.take(Kind::And)? {
            parts.push(self.operand(depth)?);
        }
        Ok(joined(parts, Expression::Every))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other token is an error")]
    fn operand(&mut self, depth: usize) -> Result<Expression, InvalidSelector> {
        let mut is_negated = false;
        while self.take(Kind::Not)? {
            is_negated = !is_negated;
        }
        let operand = match self.token.kind {
            Kind::Open => self.parenthesised(depth)?,
            Kind::Word(word) => self.word(word)?,
            _ => return Err(self.unexpected(OPERAND)),
        };
        Ok(if is_negated { operand.negated() } else { operand })
    }

    fn parenthesised(&mut self, depth: usize) -> Result<Expression, InvalidSelector> {
        if depth >= MAX_DEPTH {
            return Err(InvalidSelector::at(self.text, self.token.start, Problem::TooDeep));
        }
        self.advance()?;
        let inner = self.any(depth.saturating_add(1))?;
        self.expect(Kind::Close, "`&&`, `||` or `)`")?;
        Ok(inner)
    }

    /// Parses what a word starts: a function if `(` follows at once, else a test.
    fn word(&mut self, word: &'a str) -> Result<Expression, InvalidSelector> {
        let word_end = self.token.end;
        self.advance()?;
        if self.token.kind != Kind::Open || self.token.start != word_end {
            return self.test(word.to_owned());
        }
        match word {
            "has" => {
                self.advance()?;
                let label = self.label()?;
                self.expect(Kind::Close, "`)` after the label")?;
                Ok(Expression::Has(label))
            }
            "all" => self.empty_call(Expression::All),
            "global" => self.empty_call(Expression::Global),
            _ => Err(self.unexpected(OPERATOR)),
        }
    }

    fn empty_call(&mut self, meaning: Expression) -> Result<Expression, InvalidSelector> {
        self.advance()?;
        self.expect(Kind::Close, "`)`, since this takes no argument")?;
        Ok(meaning)
    }

    fn label(&mut self) -> Result<String, InvalidSelector> {
        let Kind::Word(label) = self.token.kind else {
            return Err(self.unexpected("a label without quotes"));
        };
        self.advance()?;
        Ok(label.to_owned())
    }

    /// Parses the operator after `label` and what follows it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other token is an error")]
    fn test(&mut self, label: String) -> Result<Expression, InvalidSelector> {
        let comparison = match self.token.kind {
            Kind::Equal => Comparison::Equal,
            Kind::NotEqual => Comparison::NotEqual,
            Kind::Word("contains") => Comparison::Contains,
            Kind::Word("startswith") => Comparison::StartsWith,
            Kind::Word("endswith") => Comparison::EndsWith,
            Kind::Word("starts") => self.two_words("with", Comparison::StartsWith)?,
            Kind::Word("ends") => self.two_words("with", Comparison::EndsWith)?,
            Kind::Word("in") => return self.member(label, Membership::In),
            Kind::Word("notin") => return self.member(label, Membership::NotIn),
            Kind::Word("not") => {
                let membership = self.two_words("in", Membership::NotIn)?;
                return self.member(label, membership);
            }
            _ => return Err(self.unexpected(OPERATOR)),
        };
        self.advance()?;
        let text = self.quoted("a quoted text to compare with")?;
        Ok(Expression::Compare(label, comparison, text))
    }

    /// Takes the first word of an operator and checks that `second` follows.
    fn two_words<T>(&mut self, second: &'static str, meaning: T) -> Result<T, InvalidSelector> {
        self.advance()?;
        if self.token.kind == Kind::Word(second) {
            return Ok(meaning);
        }
        Err(self.unexpected(if second == "in" { "`in` after `not`" } else { "`with`" }))
    }

    /// Takes the operator and parses the set behind it.
    fn member(
        &mut self,
        label: String,
        membership: Membership,
    ) -> Result<Expression, InvalidSelector> {
        self.advance()?;
        self.expect(Kind::OpenSet, "`{` and a list of quoted texts")?;
        let mut texts = BTreeSet::new();
        while self.token.kind != Kind::CloseSet {
            texts.insert(self.quoted("a quoted text or `}`")?);
            if !self.take(Kind::Comma)? {
                break;
            }
        }
        self.expect(Kind::CloseSet, "`,` or `}`")?;
        Ok(Expression::Member(label, membership, texts))
    }

    fn quoted(&mut self, expected: &'static str) -> Result<String, InvalidSelector> {
        let Kind::Text(text) = self.token.kind else { return Err(self.unexpected(expected)) };
        self.advance()?;
        Ok(text.to_owned())
    }

    /// Takes the next token if it is a `kind`.
    fn take(&mut self, kind: Kind<'_>) -> Result<bool, InvalidSelector> {
        let is_there = self.token.kind == kind;
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, kind: Kind<'_>, expected: &'static str) -> Result<(), InvalidSelector> {
        if self.take(kind)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn advance(&mut self) -> Result<(), InvalidSelector> {
        self.token = self.lexer.next()?;
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> InvalidSelector {
        let problem = Problem::Unexpected { found: self.token.kind.describe(), expected };
        InvalidSelector::at(self.text, self.token.start, problem)
    }
}

/// Joins two or more parts; one part stands for itself.
fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}
