//! Cuts an expression into tokens. Follows the lexical part of CEL's grammar.

use crate::source::Issue;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Int(i64),
    /// One past the largest int, which only a minus before it makes one.
    IntMinAbs,
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    Op(&'static str),
    End,
}

/// Longest first, so that the first that fits is the right one.
const OPERATORS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}",
];

pub(crate) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, Issue> {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let token = lexer.next()?;
        let is_end = token == Token::End;
        tokens.push((start, token));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    chars: &'s [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn issue(&self, at: usize, message: impl Into<String>) -> Issue {
        Issue { at, message: message.into() }
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\n' | '\r' | '\x0c' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, Issue> {
        if self.at >= self.chars.len() {
            return Ok(Token::End);
        }
        let first = self.peek(0);
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if let Some(token) = self.quoted()? {
            return Ok(token);
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let start = self.at;
            while self.peek(0) == '_' || self.peek(0).is_ascii_alphanumeric() {
                self.at += 1;
            }
            return Ok(Token::Ident(self.chars[start..self.at].iter().collect()));
        }
        for operator in OPERATORS {
            if operator.chars().enumerate().all(|(index, c)| self.peek(index) == c) {
                self.at += operator.len();
                return Ok(Token::Op(operator));
            }
        }
        Err(self.issue(self.at, format!("Syntax error: token recognition error at: '{first}'")))
    }

    fn digits(&mut self, radix: u32) -> String {
        let start = self.at;
        while self.peek(0).is_digit(radix) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            let digits = self.digits(16);
            return self.integer(start, &digits, 16);
        }
        let mut text = self.digits(10);
        let mut is_double = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            is_double = true;
            text.push('.');
            text.push_str(&self.digits(10));
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            is_double = true;
            text.push('e');
            if sign == 1 {
                text.push(self.peek(1));
            }
            self.at += 1 + sign;
            text.push_str(&self.digits(10));
        }
        if !is_double {
            return self.integer(start, &text, 10);
        }
        let text = if text.starts_with('.') { format!("0{text}") } else { text };
        text.parse().map(Token::Double).map_err(|_| self.issue(start, "invalid double literal"))
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Issue> {
        let parsed = u64::from_str_radix(digits, radix);
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return parsed.map(Token::Uint).map_err(|_| self.issue(start, "invalid uint literal"));
        }
        let invalid = self.issue(start, "invalid int literal");
        let value = parsed.map_err(|_| invalid.clone())?;
        match i64::try_from(value) {
            Ok(value) => Ok(Token::Int(value)),
            Err(_) if value == i64::MIN.unsigned_abs() => Ok(Token::IntMinAbs),
            Err(_) => Err(invalid),
        }
    }

    /// A string or bytes literal, if one begins here.
    fn quoted(&mut self) -> Result<Option<Token>, Issue> {
        let (mut is_raw, mut is_bytes, mut length) = (false, false, 0);
        while length < 2 {
            match self.peek(length) {
                'r' | 'R' if !is_raw => is_raw = true,
                'b' | 'B' if !is_bytes => is_bytes = true,
                _ => break,
            }
            length += 1;
        }
        let quote = self.peek(length);
        if quote != '"' && quote != '\'' {
            return Ok(None);
        }
        let start = self.at;
        self.at += length;
        let width = if self.peek(1) == quote && self.peek(2) == quote { 3 } else { 1 };
        self.at += width;
        let mut bytes = Vec::new();
        loop {
            if self.at >= self.chars.len() || (width == 1 && self.peek(0) == '\n') {
                return Err(self.issue(start, format!("Syntax error: token recognition error at: '{quote}'")));
            }
            if (0..width).all(|ahead| self.peek(ahead) == quote) {
                self.at += width;
                break;
            }
            if self.peek(0) == '\\' && !is_raw {
                self.escape(is_bytes, &mut bytes)?;
            } else {
                let mut buffer = [0; 4];
                bytes.extend_from_slice(self.peek(0).encode_utf8(&mut buffer).as_bytes());
                self.at += 1;
            }
        }
        if is_bytes {
            return Ok(Some(Token::Bytes(bytes)));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.issue(start, "invalid string literal"))?;
        Ok(Some(Token::Text(text)))
    }

    fn escape(&mut self, is_bytes: bool, into: &mut Vec<u8>) -> Result<(), Issue> {
        let start = self.at;
        let letter = self.peek(1);
        self.at += 2;
        let simple = match letter {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => u8::try_from(letter).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            into.push(byte);
            return Ok(());
        }
        let (radix, width) = match letter {
            'x' | 'X' => (16, 2),
            'u' if !is_bytes => (16, 4),
            'U' if !is_bytes => (16, 8),
            '0'..='3' => {
                self.at -= 1;
                (8, 3)
            }
            _ => return Err(self.issue(start, "unable to unescape string")),
        };
        let mut code = 0u32;
        for _ in 0..width {
            let digit = self.peek(0).to_digit(radix);
            let digit = digit.ok_or_else(|| self.issue(start, "unable to unescape string"))?;
            code = code.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        if is_bytes {
            into.push(code as u8);
            return Ok(());
        }
        let c = char::from_u32(code).ok_or_else(|| self.issue(start, "invalid unicode code point"))?;
        into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}
