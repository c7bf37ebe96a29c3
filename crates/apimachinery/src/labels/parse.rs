//! The selector language's lexer and parser; what is accepted and how refusals read follows upstream's `labels.Parse`.

use super::{Operator, Requirement, Selector, aggregate};
use crate::field::{Error, Path};
use crate::names::is_qualified_name;

/// Why a text is no selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    #[error("found '{found}', expected: {expected}")]
    Unexpected { found: String, expected: &'static str },
}

/// Parses `key=value,key in (a,b),!key`; nothing selects everything.
pub fn parse(text: &str) -> Result<Selector, ParseError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    parser.selector().map(Selector::new)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Identifier,
    Keyword,
    Symbol,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

impl Token<'_> {
    fn is(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// `in` and `notin` are identifiers wherever no operator can stand.
    fn is_identifier(&self) -> bool {
        matches!(self.kind, Kind::Identifier | Kind::Keyword)
    }

    fn starts_requirement(&self) -> bool {
        self.is_identifier() || self.is("!")
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// All tokens, the last one being the end.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while !rest.is_empty() {
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let (kind, length) = match symbol {
            Some(symbol) => (Kind::Symbol, symbol.len()),
            None => {
                let length = rest.find(|c| is_special(c) || is_blank(c)).unwrap_or(rest.len());
                let keyword = matches!(&rest[..length], "in" | "notin");
                (if keyword { Kind::Keyword } else { Kind::Identifier }, length)
            }
        };
        tokens.push(Token { kind, text: &rest[..length] });
        rest = rest[length..].trim_start_matches(is_blank);
    }
    tokens.push(Token { kind: Kind::End, text: "" });
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

fn unexpected<T>(found: Token<'_>, expected: &'static str) -> Result<T, ParseError> {
    Err(ParseError::Unexpected { found: found.text.to_owned(), expected })
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if !token.starts_requirement() {
                return unexpected(token, "!, identifier, or 'end of string'");
            }
            requirements.push(self.requirement().map_err(|e| match e {
                ParseError::Unexpected { .. } => ParseError::Requirement(e.to_string()),
                ParseError::Requirement(_) => e,
            })?);
            let token = self.next();
            if token.kind == Kind::End {
                return Ok(requirements);
            }
            if !token.is(",") {
                return unexpected(token, "',' or 'end of string'");
            }
            if !self.peek().starts_requirement() {
                return unexpected(self.peek(), "identifier after ','");
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let absent = self.peek().is("!");
        if absent {
            self.next();
        }
        let key = self.next();
        if !key.is_identifier() {
            return unexpected(key, "identifier");
        }
        let complaints = is_qualified_name(key.text);
        if !complaints.is_empty() {
            let error = Error::invalid(&Path::new(""), key.text, complaints.join("; "));
            return Err(ParseError::Requirement(error.to_string()));
        }
        let (operator, values) = if absent {
            (Operator::DoesNotExist, Vec::new())
        } else if self.peek().kind == Kind::End || self.peek().is(",") {
            (Operator::Exists, Vec::new())
        } else {
            self.restriction()?
        };
        Requirement::new(key.text, operator, values).map_err(|e| ParseError::Requirement(aggregate(&e)))
    }

    fn restriction(&mut self) -> Result<(Operator, Vec<String>), ParseError> {
        let token = self.next();
        let operator = match (token.kind, token.text) {
            (Kind::Keyword, "in") => Operator::In,
            (Kind::Keyword, _) => Operator::NotIn,
            (Kind::Symbol, "=" | "==") => Operator::Equals,
            (Kind::Symbol, "!=") => Operator::NotEquals,
            (Kind::Symbol, ">") => Operator::GreaterThan,
            (Kind::Symbol, "<") => Operator::LessThan,
            _ => return unexpected(token, "in, notin, =, ==, !=, gt, lt"),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Ok((operator, values))
    }

    /// `(a,b)`; an empty place between commas or parentheses is the empty value.
    fn values(&mut self) -> Result<Vec<String>, ParseError> {
        let open = self.next();
        if !open.is("(") {
            return Err(ParseError::Requirement(format!("found '{}' expected: '('", open.text)));
        }
        let mut values = Vec::new();
        loop {
            let token = self.peek();
            if token.is_identifier() {
                values.push(self.next().text.to_owned());
            } else if token.is(",") || token.is(")") {
                values.push(String::new());
            } else {
                return unexpected(token, "',', ')' or identifier");
            }
            let token = self.next();
            if token.is(")") {
                return Ok(values);
            }
            if !token.is(",") {
                return unexpected(token, "',' or ')'");
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, ParseError> {
        let token = self.peek();
        if token.kind == Kind::End || token.is(",") {
            return Ok(String::new());
        }
        self.at += 1;
        if token.is_identifier() { Ok(token.text.to_owned()) } else { unexpected(token, "identifier") }
    }
}
