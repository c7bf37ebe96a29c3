//! Reads tokens into an expression: CEL's grammar with optional syntax. Follows cel-go's `parser`.

use crate::ast::{DEPTH_MAX, Expr, Kind};
use crate::escape::is_reserved;
use crate::lexer::{Token, tokens};
use crate::macros;
use crate::source::Issue;
use crate::value::Val;

/// Longer expressions are refused unread (cel-go: `expressionSizeCodePointLimit`).
const LENGTH_MAX: usize = 100_000;

/// Parentheses, lists and calls within each other; each takes several frames of a thread's stack (cel-go allows 250).
const NESTING_MAX: u16 = 80;

pub(crate) fn parse(source: &str) -> Result<Expr, Issue> {
    if source.chars().count() > LENGTH_MAX {
        let message =
            format!("expression code point size exceeds limit: size: {}, limit {LENGTH_MAX}", source.len());
        return Err(Issue { at: 0, message });
    }
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.unexpected("extraneous input", &other.clone(), "<EOF>")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: u16,
}

type Parsed<T = Expr> = Result<T, Issue>;

/// Operators by how tightly they bind, and the functions they call.
const BINARY: &[(&str, u8, &str)] = &[
    ("<", 1, "_<_"),
    ("<=", 1, "_<=_"),
    (">", 1, "_>_"),
    (">=", 1, "_>=_"),
    ("==", 1, "_==_"),
    ("!=", 1, "_!=_"),
    ("in", 1, "@in"),
    ("+", 2, "_+_"),
    ("-", 2, "_-_"),
    ("*", 3, "_*_"),
    ("/", 3, "_/_"),
    ("%", 3, "_%_"),
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].1.clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == operator)
    }

    fn take(&mut self, operator: &str) -> bool {
        let is = self.is(operator);
        if is {
            self.next += 1;
        }
        is
    }

    fn expect(&mut self, operator: &'static str) -> Parsed<()> {
        if self.take(operator) {
            return Ok(());
        }
        let found = self.peek().clone();
        Err(self.unexpected("mismatched input", &found, &format!("'{operator}'")))
    }

    fn unexpected(&self, what: &str, found: &Token, expected: &str) -> Issue {
        let found = match found {
            Token::End => "<EOF>".to_owned(),
            Token::Op(operator) => (*operator).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Text(text) => format!("\"{text}\""),
            Token::Int(value) => value.to_string(),
            Token::Uint(value) => format!("{value}u"),
            Token::Double(value) => value.to_string(),
            Token::IntMinAbs => i64::MIN.unsigned_abs().to_string(),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        let message = format!("Syntax error: {what} '{found}' expecting {expected}");
        Issue { at: self.at(), message }
    }

    fn too_deep(&self) -> Issue {
        Issue { at: self.at(), message: format!("expression recursion limit exceeded: {DEPTH_MAX}") }
    }

    fn checked(&self, expr: Expr) -> Parsed {
        if expr.depth > DEPTH_MAX { Err(self.too_deep()) } else { Ok(expr) }
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(self.too_deep());
        }
        let condition = self.logical("||")?;
        let at = self.at();
        let expr = if self.take("?") {
            let yes = self.logical("||")?;
            self.expect(":")?;
            let no = self.expression()?;
            self.checked(Expr::call(at, "_?_:_", vec![condition, yes, no]))?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// A chain of `||` or `&&`, as a balanced tree: long ones must not be deep.
    fn logical(&mut self, operator: &'static str) -> Parsed {
        let mut terms = Vec::new();
        let mut places = Vec::new();
        loop {
            terms.push(if operator == "||" { self.logical("&&")? } else { self.binary(1)? });
            places.push(self.at());
            if !self.take(operator) {
                break;
            }
        }
        let function = if operator == "||" { "_||_" } else { "_&&_" };
        self.checked(balanced(function, &mut terms.into_iter(), &places[..places.len() - 1]))
    }

    fn binary(&mut self, level: u8) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Op(operator) => *operator,
                Token::Ident(name) if name == "in" => "in",
                _ => return Ok(left),
            };
            let Some((_, binds, function)) = BINARY.iter().find(|(text, ..)| *text == operator) else {
                return Ok(left);
            };
            if *binds < level {
                return Ok(left);
            }
            let at = self.at();
            self.next += 1;
            let right = self.binary(binds + 1)?;
            left = self.checked(Expr::call(at, function, vec![left, right]))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let mut count = 0;
        for operator in ["!", "-"] {
            while self.is(operator) {
                if operator == "-" && self.negative_literal().is_some() {
                    break;
                }
                self.next += 1;
                count += 1;
            }
            if count > 0 {
                let mut expr = self.member()?;
                // Two of a kind undo each other, as the grammar says.
                if count % 2 == 1 {
                    let function = if operator == "!" { "!_" } else { "-_" };
                    expr = Expr::call(at, function, vec![expr]);
                }
                return self.checked(expr);
            }
        }
        self.member()
    }

    /// `-` directly before a number is part of the number.
    fn negative_literal(&self) -> Option<Val<'static>> {
        let (after, token) = self.tokens.get(self.next + 1)?;
        let touches = *after == self.at() + 1;
        match token {
            Token::Int(value) if touches => Some(Val::Int(-value)),
            Token::IntMinAbs if touches => Some(Val::Int(i64::MIN)),
            Token::Double(value) if touches => Some(Val::Double(-value)),
            _ => None,
        }
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let at = self.at();
            if self.take(".") {
                let is_optional = self.take("?");
                let name = self.name()?;
                let call_at = self.at();
                if !is_optional && self.take("(") {
                    let args = self.list_of(")", Parser::expression)?;
                    let expanded = macros::member(call_at, expr, &name, args);
                    expr = expanded?;
                } else {
                    let operand = Box::new(expr);
                    expr = Expr::new(at, Kind::Select { operand, field: name, is_test: false, is_optional });
                }
            } else if self.take("[") {
                let function = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                expr = Expr::call(at, function, vec![expr, index]);
            } else if self.is("{") && qualified(&expr).is_some() {
                let name = qualified(&expr).expect("it was asked for just now");
                self.next += 1;
                let fields = self.list_of("}", Parser::field)?;
                expr = Expr::new(at, Kind::Struct(name, fields));
            } else {
                return Ok(expr);
            }
            expr = self.checked(expr)?;
        }
    }

    fn field(&mut self) -> Parsed<(bool, String, Expr)> {
        let is_optional = self.take("?");
        let name = self.name()?;
        self.expect(":")?;
        Ok((is_optional, name, self.expression()?))
    }

    fn entry(&mut self) -> Parsed<(bool, Expr, Expr)> {
        let is_optional = self.take("?");
        let key = self.expression()?;
        self.expect(":")?;
        Ok((is_optional, key, self.expression()?))
    }

    fn item(&mut self) -> Parsed<(bool, Expr)> {
        Ok((self.take("?"), self.expression()?))
    }

    fn name(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Token::Ident(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => {
                self.next += 1;
                Ok(name)
            }
            other => Err(self.unexpected("mismatched input", &other, "IDENTIFIER")),
        }
    }

    /// What stands between here and `end`, with commas between and perhaps one after.
    fn list_of<T>(&mut self, end: &'static str, item: fn(&mut Parser) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(item(self)?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
            if end == ")" && self.is(end) {
                let found = self.peek().clone();
                return Err(self.unexpected("mismatched input", &found, "an expression"));
            }
        }
        Ok(items)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        if self.is("-")
            && let Some(value) = self.negative_literal()
        {
            self.next += 2;
            return Ok(Expr::constant(at, value));
        }
        let token = self.advance();
        let value = match token {
            Token::Int(value) => Val::Int(value),
            Token::Uint(value) => Val::Uint(value),
            Token::Double(value) => Val::Double(value),
            Token::Text(text) => Val::text(text),
            Token::Bytes(bytes) => Val::Bytes(bytes.into()),
            Token::Ident(name) => return self.named(at, name),
            Token::Op("(") => {
                let expr = self.expression()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Op("[") => {
                let items = self.list_of("]", Parser::item)?;
                return self.checked(Expr::new(at, Kind::List(items)));
            }
            Token::Op("{") => {
                let entries = self.list_of("}", Parser::entry)?;
                return self.checked(Expr::new(at, Kind::Map(entries)));
            }
            Token::Op(".") => {
                let name = self.name()?;
                return self.named(at, name);
            }
            Token::IntMinAbs => return Err(Issue { at, message: "invalid int literal".to_owned() }),
            other => {
                self.next -= usize::from(other != Token::End);
                let expected = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                                STRING, BYTES, IDENTIFIER}";
                return Err(self.unexpected("mismatched input", &other, expected));
            }
        };
        Ok(Expr::constant(at, value))
    }

    fn named(&mut self, at: usize, name: String) -> Parsed {
        match name.as_str() {
            "true" => return Ok(Expr::constant(at, Val::Bool(true))),
            "false" => return Ok(Expr::constant(at, Val::Bool(false))),
            "null" => return Ok(Expr::constant(at, Val::Null)),
            _ => {}
        }
        if is_reserved(&name) {
            return Err(Issue { at, message: format!("reserved identifier: {name}") });
        }
        let call_at = self.at();
        if self.take("(") {
            let args = self.list_of(")", Parser::expression)?;
            let expr = macros::global(call_at, &name, args)?;
            return self.checked(expr);
        }
        Ok(Expr::ident(at, &name))
    }
}

/// `a.b.c`, if that is what the expression is.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, is_test: false, is_optional: false } => {
            Some(format!("{}.{field}", qualified(operand)?))
        }
        _ => None,
    }
}

fn balanced(function: &str, terms: &mut std::vec::IntoIter<Expr>, places: &[usize]) -> Expr {
    if places.is_empty() {
        return terms.next().expect("a chain has one term more than operators");
    }
    let middle = places.len() / 2;
    let left = balanced(function, terms, &places[..middle]);
    let right = balanced(function, terms, &places[middle + 1..]);
    Expr::call(places[middle], function, vec![left, right])
}
