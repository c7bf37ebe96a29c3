//! CoreDNS' configuration file, as far as its form goes: server blocks of directives, which may have blocks of their own.
//! What directives mean is the business of [`super::settings`].

use super::Name;

/// A file is as large as a ConfigMap may be; blocks within blocks beyond these are no plugin's.
const DEPTH_MAX: usize = 4;

/// What is served for some zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBlock {
    pub zones: Vec<Name>,
    pub directives: Vec<Directive>,
}

/// A line with its words, the first of which says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub line: usize,
    pub words: Vec<String>,
    pub block: Vec<Directive>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: a block is closed that was not opened")]
    Unopened { line: usize },
    #[error("a block is not closed")]
    Unclosed,
    #[error("line {line}: blocks are nested too deeply")]
    Depth { line: usize },
    #[error("line {line}: a server block must begin with its zones and an opening brace")]
    NoBlock { line: usize },
    #[error("line {line}: {zone:?} is no zone that is served here")]
    Zone { line: usize, zone: String },
}

/// Reads a file.
pub fn parse(text: &str) -> Result<Vec<ServerBlock>, Error> {
    parse_directives(text)?.into_iter().map(ServerBlock::of).collect()
}

/// Reads what would stand in a server block.
pub fn parse_directives(text: &str) -> Result<Vec<Directive>, Error> {
    // The directives of each block that is open, the file's own first.
    let mut open: Vec<Vec<Directive>> = vec![Vec::new()];
    for (number, text) in (1..).zip(text.lines()) {
        let mut words = words(text);
        if words.first().is_some_and(|word| word == "}") {
            let block = open.pop().expect("the file's own is never taken, see below");
            let owner = open.last_mut().and_then(|around| around.last_mut());
            owner.ok_or(Error::Unopened { line: number })?.block = block;
            continue;
        }
        let opens = words.last().is_some_and(|word| word == "{");
        if opens {
            words.pop();
        }
        if words.is_empty() && !opens {
            continue;
        }
        let directive = Directive { line: number, words, block: Vec::new() };
        open.last_mut().expect("as above").push(directive);
        if opens {
            open.push(Vec::new());
        }
        if open.len() > DEPTH_MAX {
            return Err(Error::Depth { line: number });
        }
    }
    let file = open.remove(0);
    if open.is_empty() { Ok(file) } else { Err(Error::Unclosed) }
}

/// The words of a line up to a comment. Quotes hold words together, braces stand alone.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted && word.is_empty() => break,
            blank if blank.is_whitespace() && !quoted => words.extend(finished(&mut word)),
            other => word.push(other),
        }
    }
    words.extend(finished(&mut word));
    words
}

fn finished(word: &mut String) -> Option<String> {
    Some(std::mem::take(word)).filter(|word| !word.is_empty())
}

impl ServerBlock {
    fn of(directive: Directive) -> Result<ServerBlock, Error> {
        let Directive { line, words, block } = directive;
        let keys = words.iter().flat_map(|word| word.split(',')).filter(|key| !key.is_empty());
        let zones: Vec<Name> = keys
            .map(|key| zone(key).ok_or_else(|| Error::Zone { line, zone: key.to_owned() }))
            .collect::<Result<_, _>>()?;
        if zones.is_empty() {
            return Err(Error::NoBlock { line });
        }
        Ok(ServerBlock { zones, directives: block })
    }
}

/// `[dns://]ZONE[:PORT]`; the port is ours to say, and other schemes are not served.
fn zone(key: &str) -> Option<Name> {
    let zone = key.strip_prefix("dns://").unwrap_or(key);
    let zone = match zone.rsplit_once(':') {
        Some((zone, port)) => port.parse::<u16>().ok().map(|_| zone)?,
        None => zone,
    };
    Name::parse(zone).filter(|_| !zone.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn blocks_of_zones_hold_directives() {
        let text = ".:53, dns://example.org {\n  errors # to the log\n  forward . \"192.0.2.1\" {\n    policy random\n  }\n}\nacme.test {\n}\n";
        let blocks = parse(text).expect("a Corefile");
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].zones, [name("."), name("example.org")]);
        let [errors, forward] = blocks[0].directives.as_slice() else { panic!("{blocks:?}") };
        assert_eq!((errors.line, errors.words.as_slice()), (2, ["errors".to_owned()].as_slice()));
        assert_eq!(forward.words, ["forward", ".", "192.0.2.1"]);
        assert_eq!(forward.block[0].words, ["policy", "random"]);
        assert_eq!(
            (blocks[1].zones.as_slice(), blocks[1].directives.len()),
            ([name("acme.test")].as_slice(), 0)
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |text: &str, expected: Error| assert_eq!(parse(text), Err(expected), "{text}");
        check(". {\n", Error::Unclosed);
        check(". {\n}\n}\n", Error::Unopened { line: 3 });
        check("{\n}\n", Error::NoBlock { line: 1 });
        check("tls://. {\n}\n", Error::Zone { line: 1, zone: "tls://.".into() });
        check(&". {\n".repeat(9), Error::Depth { line: DEPTH_MAX });
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[a-z.:{}\" #\n]{0,80}") {
            drop(parse(&text));
        }
    }
}
