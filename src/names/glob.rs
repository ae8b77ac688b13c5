//! A glob as an automaton that is walked byte by byte: no pattern takes longer than its length times that of the
//! name, and making one takes a single pass over its text.
//!
//! The language is that of the `globset` crate with `literal_separator`, to its corners; a property test compares them.

use std::iter::Peekable;
use std::str::Chars;

/// Maximum depth of alternatives within alternatives.
const MAX_NESTING: usize = 100;

/// A glob that is made.
#[derive(Debug)]
pub(super) struct Glob(Vec<Step>);

/// One state. Targets are counted from the state itself, and all lie ahead: so one pass in order is enough for each
/// byte.
#[derive(Debug)]
enum Step {
    /// This byte.
    Byte(u8),
    /// Any byte but `/`.
    InComponent,
    /// One of these bytes.
    Class(Box<[bool; 256]>),
    /// Any number of bytes; without `/`, or with.
    Many { crosses: bool },
    /// Goes on with the next state and with that one.
    Skip(usize),
    /// Goes on with that state.
    Goto(usize),
}

#[derive(Debug)]
enum Token {
    Literal(char),
    Any,
    ZeroOrMore,
    /// `**/` at the beginning.
    Prefix,
    /// `/**` at the end.
    Suffix,
    /// `/**/`.
    Between,
    Class(Box<[bool; 256]>),
    Alternatives(Vec<Vec<Token>>),
}

impl Glob {
    /// Reads the text of a glob; what is wrong with it otherwise.
    pub fn new(text: &str) -> Result<Self, String> {
        let tokens = Parser::read(text)?;
        // `**/` alone.
        if let [Token::Prefix] = tokens.as_slice() {
            return Ok(Self(vec![Step::Many { crosses: true }]));
        }
        Ok(Self(steps(&tokens)))
    }

    /// Whether it matches all of the name.
    pub fn matches(&self, name: &str) -> bool {
        let end = self.0.len();
        let mut here = vec![false; end + 1];
        let mut next = vec![false; end + 1];
        here[0] = true;
        let (mut first, mut last) = (0, 0);
        for byte in name.bytes().map(Some).chain([None]) {
            let (mut next_first, mut next_last) = (end + 1, 0);
            let mut at = first;
            while at <= last {
                if std::mem::take(&mut here[at]) {
                    let mut go = |to: usize| {
                        here[at + to] = true;
                        last = last.max(at + to);
                    };
                    let Some(step) = self.0.get(at) else {
                        if byte.is_none() {
                            return true;
                        }
                        break;
                    };
                    let taken = match step {
                        Step::Byte(wanted) => (byte == Some(*wanted)).then_some(1),
                        Step::InComponent => byte.is_some_and(|byte| byte != b'/').then_some(1),
                        Step::Class(class) => byte.is_some_and(|byte| class[usize::from(byte)]).then_some(1),
                        Step::Many { crosses } => {
                            go(1);
                            byte.is_some_and(|byte| *crosses || byte != b'/').then_some(0)
                        }
                        Step::Skip(to) => {
                            go(1);
                            go(*to);
                            None
                        }
                        Step::Goto(to) => {
                            go(*to);
                            None
                        }
                    };
                    if let Some(to) = taken {
                        next[at + to] = true;
                        next_first = next_first.min(at + to);
                        next_last = next_last.max(at + to);
                    }
                }
                at += 1;
            }
            if next_first > end {
                return false;
            }
            std::mem::swap(&mut here, &mut next);
            (first, last) = (next_first, next_last);
        }
        false
    }
}

fn steps(tokens: &[Token]) -> Vec<Step> {
    let mut made = Vec::new();
    for token in tokens {
        match token {
            Token::Literal(c) => made.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Step::Byte)),
            Token::Any => made.push(Step::InComponent),
            Token::ZeroOrMore => made.push(Step::Many { crosses: false }),
            Token::Prefix => made.extend([Step::Skip(3), Step::Many { crosses: true }, Step::Byte(b'/')]),
            Token::Suffix => made.extend([Step::Byte(b'/'), Step::Many { crosses: true }]),
            Token::Between => {
                made.extend([
                    Step::Byte(b'/'),
                    Step::Skip(3),
                    Step::Many { crosses: true },
                    Step::Byte(b'/'),
                ]);
            }
            Token::Class(class) => made.push(Step::Class(class.clone())),
            Token::Alternatives(branches) => made.extend(alternatives(branches)),
        }
    }
    made
}

/// One of the branches; empty ones do not count.
fn alternatives(branches: &[Vec<Token>]) -> Vec<Step> {
    let branches = branches.iter().map(|branch| steps(branch)).filter(|branch| !branch.is_empty());
    let mut made: Vec<Step> = Vec::new();
    for branch in branches.rev() {
        if made.is_empty() {
            made = branch;
            continue;
        }
        let (length, rest) = (branch.len(), made.len());
        let mut all = vec![Step::Skip(length + 2)];
        all.extend(branch);
        all.push(Step::Goto(rest + 1));
        all.extend(made);
        made = all;
    }
    made
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
    /// The character before the one that is read.
    previous: Option<char>,
    current: Option<char>,
    /// The pattern itself and the branches of the alternatives that are open.
    branches: Vec<Vec<Token>>,
    /// Where the branches of each open group begin.
    open: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn read(text: &'a str) -> Result<Vec<Token>, String> {
        let mut parser = Self {
            chars: text.chars().peekable(),
            previous: None,
            current: None,
            branches: vec![Vec::new()],
            open: Vec::new(),
        };
        while let Some(c) = parser.bump() {
            match c {
                '?' => parser.push(Token::Any),
                '*' => parser.star(),
                '[' => parser.class()?,
                '{' => parser.begin_alternatives()?,
                '}' => parser.end_alternatives()?,
                ',' if !parser.open.is_empty() => parser.branches.push(Vec::new()),
                '\\' => {
                    let escaped = parser.bump().ok_or("nothing follows its last '\\'")?;
                    parser.push(Token::Literal(escaped));
                }
                c => parser.push(Token::Literal(c)),
            }
        }
        if !parser.open.is_empty() {
            return Err("a '{' has no '}'".to_owned());
        }
        Ok(parser.branches.pop().unwrap_or_default())
    }

    fn bump(&mut self) -> Option<char> {
        self.previous = self.current;
        self.current = self.chars.next();
        self.current
    }

    fn push(&mut self, token: Token) {
        // There is always one: each group leaves that around it.
        if let Some(branch) = self.branches.last_mut() {
            branch.push(token);
        }
    }

    fn begin_alternatives(&mut self) -> Result<(), String> {
        if self.open.len() == MAX_NESTING {
            return Err(format!("it has more than {MAX_NESTING} '{{' within each other"));
        }
        self.open.push(self.branches.len());
        self.branches.push(Vec::new());
        Ok(())
    }

    fn end_alternatives(&mut self) -> Result<(), String> {
        let start = self.open.pop().ok_or("a '}' has no '{'")?;
        let branches = self.branches.drain(start..).collect();
        self.push(Token::Alternatives(branches));
        Ok(())
    }

    fn star(&mut self) {
        let before = self.previous;
        if self.chars.peek() != Some(&'*') {
            return self.push(Token::ZeroOrMore);
        }
        self.bump();
        let (peeked, within) = (self.chars.peek().copied(), self.branches.len() >= 2);
        if self.branches.last().is_none_or(Vec::is_empty) {
            if peeked.is_some_and(|c| c != '/') {
                return self.push(Token::ZeroOrMore);
            }
            self.push(Token::Prefix);
            self.bump();
            return;
        }
        if before != Some('/') && !(within && matches!(before, Some(',' | '{'))) {
            return self.push(Token::ZeroOrMore);
        }
        let ends = match peeked {
            None => true,
            Some(',' | '}') if within => true,
            Some('/') => false,
            Some(_) => return self.push(Token::ZeroOrMore),
        };
        if peeked.is_none_or(|c| c == '/') {
            self.bump();
        }
        let replaced = self.branches.last_mut().and_then(Vec::pop);
        self.push(match replaced {
            Some(Token::Prefix) => Token::Prefix,
            Some(Token::Suffix) => Token::Suffix,
            _ if ends => Token::Suffix,
            _ => Token::Between,
        });
    }

    fn class(&mut self) -> Result<(), String> {
        let negated = self.chars.next_if(|c| matches!(c, '!' | '^')).is_some();
        let mut ranges: Vec<(char, char)> = Vec::new();
        let (mut first, mut in_range) = (true, false);
        loop {
            let c = self.bump().ok_or("a '[' has no ']'")?;
            match c {
                ']' if !first => break,
                '-' if !first && !in_range => in_range = true,
                c => {
                    match ranges.last_mut().filter(|_| in_range) {
                        Some(last) => last.1 = c,
                        None => ranges.push((c, c)),
                    }
                    in_range = false;
                }
            }
            first = false;
        }
        if in_range {
            ranges.push(('-', '-'));
        }
        let mut class = Box::new([false; 256]);
        for (from, to) in ranges {
            add(&mut class, from, to).ok_or_else(|| format!("in a '[..]' {from} is not before {to}"))?;
        }
        if negated {
            class.iter_mut().for_each(|byte| *byte = !*byte);
        }
        self.push(Token::Class(class));
        Ok(())
    }
}

/// Adds the bytes of both characters, and those between the last of the one and the first of the other.
fn add(class: &mut [bool; 256], from: char, to: char) -> Option<()> {
    let (mut a, mut b) = ([0; 4], [0; 4]);
    let (a, b) = (from.encode_utf8(&mut a).as_bytes(), to.encode_utf8(&mut b).as_bytes());
    for byte in a.iter().chain(b) {
        class[usize::from(*byte)] = true;
    }
    if from == to {
        return Some(());
    }
    let (from_byte, to_byte) = (*a.last()?, *b.first()?);
    if from > to || from_byte > to_byte {
        return None;
    }
    class[usize::from(from_byte)..=usize::from(to_byte)].fill(true);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use globset::{GlobBuilder, GlobSet};
    use std::time::{Duration, Instant};

    /// What Proofmark matched with before.
    fn reference(text: &str) -> Option<GlobSet> {
        let glob = GlobBuilder::new(text).literal_separator(true).build().ok()?;
        GlobSet::builder().add(glob).build().ok()
    }

    fn agree(text: &str, names: &[String]) {
        let (own, other) = (Glob::new(text), reference(text));
        assert_eq!(own.is_ok(), other.is_some(), "{text:?}: {own:?}");
        let (Ok(own), Some(other)) = (own, other) else { return };
        for name in names {
            assert_eq!(own.matches(name), other.is_match(name), "{text:?} and {name:?}");
        }
    }

    #[test]
    fn the_corners_of_the_language_are_those_of_globset() {
        let names: Vec<String> = [
            "", "a", "b", "/", "a/", "/a", "a/b", "a/b/c", "ab", "é", "a,b", "a{b}", "-", "]", "^", "a//b",
            "*",
        ]
        .map(str::to_owned)
        .into();
        for text in [
            "**/",
            "**/**",
            "a/**/**",
            "a/**",
            "a/**/b",
            "a**",
            "**a",
            "a/**b",
            "{**/a,b}",
            "{a/**,b}/c",
            "{,a}b",
            "{}",
            "{{},a}",
            "a,b",
            "a\\{b\\}",
            "[]]",
            "[!]]",
            "[a-]",
            "[^a]",
            "[!/]*",
            "[a-é]",
            "[é-a]",
            "[b-a]",
            "?",
            "??",
            "a/\\**",
            "[",
            "{",
            "}",
            "\\",
            "{a,**}",
            "{**,a}/b",
            "a/{**,b}",
            "\\/**",
            "[-a]",
            "[--a]",
            "[a-c-e]",
        ] {
            agree(text, &names);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4000))]
        #[test]
        fn every_pattern_matches_what_globset_matches(
            text in "([abé/*?!,{}\\[\\]\\\\^-]|\\*\\*|/\\*\\*/|\\{a,b\\}|\\[a-é\\]){1,9}",
            names in proptest::collection::vec("[abé/,{}^*!-]{0,7}", 24),
        ) {
            agree(&text, &names);
        }
    }

    #[test]
    fn no_pattern_takes_long_to_make_or_to_match() {
        let name = "a".repeat(255);
        for part in ["*a", "[!a-zé-￿]", "?", "**/", "{?,??,???}", "{a,b,c,d}"] {
            let text = part.repeat(512 / part.len());
            let started = Instant::now();
            let glob = Glob::new(&text).unwrap();
            for _ in 0..20 {
                glob.matches(&name);
            }
            let took = started.elapsed() / 20;
            assert!(took < Duration::from_millis(100), "{part}: {took:?}");
        }
    }
}
