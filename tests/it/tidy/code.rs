//! Rust text with parts of it blanked. Lines and offsets stay as they are, so that a complaint can name a place.

/// What is left to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Code alone: comments and the content of string and character literals are blank.
    Code,
    /// Code and literals: comments are blank.
    CodeAndText,
}

/// `source` without what `keep` leaves out.
pub(super) fn strip(source: &str, keep: Keep) -> String {
    let mut out = source.as_bytes().to_vec();
    let mut at = 0;
    while at < out.len() {
        let (length, blank) =
            token(&source.as_bytes()[at..], at.checked_sub(1).map(|before| source.as_bytes()[before]));
        let erased = match blank {
            Token::Comment => true,
            Token::Text => keep == Keep::Code,
            Token::Other => false,
        };
        if erased {
            out[at..at + length].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at += length;
    }
    String::from_utf8(out).expect("only whole tokens are blanked")
}

enum Token {
    Comment,
    Text,
    Other,
}

/// The token at the start of `rest`, and its length.
fn token(rest: &[u8], before: Option<u8>) -> (usize, Token) {
    if rest.starts_with(b"//") {
        return (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), Token::Comment);
    }
    if rest.starts_with(b"/*") {
        return (block_comment(rest), Token::Comment);
    }
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    if prefix <= 2 && !in_word {
        let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
        let raw = rest[..prefix].contains(&b'r');
        if rest.get(prefix + hashes) == Some(&b'"') && (raw || hashes == 0) {
            let open = prefix + hashes + 1;
            return (open + text_length(&rest[open..], raw.then_some(hashes)), Token::Text);
        }
    }
    if rest[0] == b'\'' {
        // A lifetime has no closing quote after one character.
        let width = rest.get(1).map_or(1, |first| match first {
            b'\\' => rest[3.min(rest.len())..].iter().position(|byte| *byte == b'\'').map_or(1, |end| end + 2),
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        });
        if rest.get(1 + width) == Some(&b'\'') {
            return (width + 2, Token::Text);
        }
    }
    (1, Token::Other)
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Up to and with the closing quote; `hashes` in a raw string.
fn text_length(rest: &[u8], hashes: Option<usize>) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match (rest[at], hashes) {
            (b'\\', None) => at += 2,
            (b'"', None) => return at + 1,
            (b'"', Some(n)) if rest[at + 1..].iter().take(n).filter(|byte| **byte == b'#').count() == n => {
                return at + 1 + n;
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Stripped `code` without the items under `#[cfg(test)]`.
pub(super) fn production(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = start + item_length(&out[start..]);
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// From an attribute to the end of its item: the brace that closes its first block, or a semicolon before any.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The line of an offset, counted from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Offsets of `word` where it stands alone.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word))
}

#[test]
fn stripping_finds_the_ends_of_comments_and_literals() {
    let source =
        "a /* x /* y */ z */ b // c\nd \"e \\\" // f\" g r#\"h \" i\"# 'j' '\\'' &'k l '\\u{1F600}' br\"m\" 'é' n";
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(strip(source, Keep::Code)), ["a", "b", "d", "g", "&'k", "l", "n"]);
    assert!(strip(source, Keep::CodeAndText).contains("e \\\" // f"));
    assert_eq!(strip(source, Keep::Code).len(), source.len());
}

#[test]
fn production_code_ends_where_an_item_for_tests_begins_and_goes_on_behind_it() {
    let left = production("a(); #[cfg(test)]\nmod tests { fn f() { b(); } }\nc(); #[cfg(test)] mod more; d();");
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["a();", "c();", "d();"]);
}
