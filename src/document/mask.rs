//! What of a document may be shown. Problems are printed with their source line, and a configuration may hold
//! secrets inline, misspelt, or beside a syntax error; so masking goes by tokens, which need no valid document,
//! and in doubt it hides too much.

use toml_parser::{
    Source,
    lexer::{Token, TokenKind},
};

/// A key that contains one of these holds secrets, wherever it stands, and so does everything inside it.
const SECRET_WORDS: [&str; 17] = [
    "value",
    "secret",
    "token",
    "password",
    "passwd",
    "authorization",
    "cookie",
    "apikey",
    "headers",
    "encryption",
    // Keys that there are not, but that somebody may try first.
    "bearer",
    "passphrase",
    "hmackey",
    "signingkey",
    "webhookkey",
    "sharedkey",
    "privatekey",
];

/// Inside a secret table these say where a secret is, not what it is.
const HARMLESS: [&str; 10] =
    ["file", "env", "credential", "id", "encoding", "role", "not_before", "expires_at", "allow_short", "url"];

/// The text with what may be secret replaced by `*`: same length in bytes, same lines.
pub(super) fn mask_secrets(text: &str) -> String {
    let tokens = Source::new(text).lex().into_vec();
    let mut shown = text.as_bytes().to_vec();
    // Secrecy of the value being read, of the brackets around it, and of the [header] above it.
    let (mut value_is_secret, mut nests, mut header_is_secret) = (false, Vec::new(), false);
    for (i, token) in tokens.iter().enumerate() {
        let range = token.span().start()..token.span().end();
        let word = &text[range.clone()];
        match token.kind() {
            TokenKind::LeftSquareBracket if nests.is_empty() && starts_line(&tokens[..i]) => {
                header_is_secret = names_secret(line_of(text, range.start));
                value_is_secret = header_is_secret;
            }
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => nests.push(value_is_secret),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                value_is_secret |= nests.pop().unwrap_or(false);
            }
            // A comment may be a line that was commented out, and beside a secret an older one.
            TokenKind::Comment if value_is_secret || names_secret(word) || word.contains("://") => {
                hide(&mut shown[range.start + 1..range.end]);
            }
            _ if nests.is_empty() && header_is_open(text, &tokens[..i]) => {}
            TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString if is_key(&tokens[i + 1..]) => {
                let around =
                    header_is_secret || nests.contains(&true) || (value_is_secret && follows_dot(&tokens[..i]));
                let name = word.trim_matches(['"', '\'']);
                value_is_secret = names_secret(name) || (around && !HARMLESS.contains(&name));
            }
            TokenKind::Atom
            | TokenKind::Dot
            | TokenKind::BasicString
            | TokenKind::LiteralString
            | TokenKind::MlBasicString
            | TokenKind::MlLiteralString => {
                // A bare `secret` where no key can be: the `=` is missing, what follows is its value. Or a quote too
                // much or too few made a string of the assignment.
                let (is_bare, names) = (token.kind() == TokenKind::Atom, names_secret(word));
                let swallowed = !is_bare && names && word.contains('=');
                if (value_is_secret || swallowed) && !(is_bare && matches!(word, "true" | "false")) {
                    hide(&mut shown[range.clone()]);
                }
                value_is_secret |= swallowed || (is_bare && names);
                hide_user(&mut shown[range]);
            }
            _ => {}
        }
    }
    String::from_utf8(shown).unwrap_or_else(|_| "*".repeat(text.len()))
}

/// Whether a key is one that holds secrets, allowing for a typing error in it.
pub(super) fn names_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace(['-', '_'], "");
    SECRET_WORDS.iter().any(|word| lower.contains(word))
        || lower
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|name| name.len() > 3 && SECRET_WORDS.iter().any(|word| strsim::damerau_levenshtein(name, word) <= 1))
}

/// Whether an `=` or a `.` follows, on the same line.
fn is_key(after: &[Token]) -> bool {
    let next = after.iter().find(|token| token.kind() != TokenKind::Whitespace);
    next.is_some_and(|token| matches!(token.kind(), TokenKind::Equals | TokenKind::Dot))
        && !after.first().is_some_and(|token| token.kind() == TokenKind::Dot && looks_like_number(after))
}

/// `1.5` is a number, not the key `1` of a dotted name.
fn looks_like_number(after: &[Token]) -> bool {
    after.iter().take_while(|token| token.kind() != TokenKind::Newline).all(|token| token.kind() != TokenKind::Equals)
}

fn follows_dot(before: &[Token]) -> bool {
    before.iter().rev().find(|token| token.kind() != TokenKind::Whitespace).is_some_and(|t| t.kind() == TokenKind::Dot)
}

fn starts_line(before: &[Token]) -> bool {
    before
        .iter()
        .rev()
        .take_while(|token| token.kind() != TokenKind::Newline)
        .all(|token| matches!(token.kind(), TokenKind::Whitespace | TokenKind::LeftSquareBracket))
}

/// Whether the token after these stands inside the brackets of a `[header]`.
fn header_is_open(text: &str, before: &[Token]) -> bool {
    let line = before.iter().rposition(|token| token.kind() == TokenKind::Newline).map_or(0, |at| at + 1);
    let line = &before[line..];
    let Some((first, last)) = line.first().zip(line.last()) else { return false };
    let so_far = &text[first.span().start()..last.span().end()];
    so_far.trim_start().starts_with('[') && !so_far.contains([']', '=', ','])
}

fn line_of(text: &str, at: usize) -> &str {
    text[at..].lines().next().unwrap_or("")
}

fn hide(bytes: &mut [u8]) {
    for byte in bytes {
        if !matches!(*byte, b'"' | b'\'' | b'\n' | b'\r') {
            *byte = b'*';
        }
    }
}

/// A text that may be a URL: then it ends with the host, because a path or a query is a credential at many services. The
/// name and the password before the host are hidden.
pub(super) fn host_only(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    hide_user(&mut bytes);
    let text = String::from_utf8(bytes).unwrap_or_default();
    let Some(host) = text.find("://").map(|at| at + 3) else { return text };
    match text[host..].find(['/', '?', '#']).map(|at| host + at) {
        Some(end) if end + 1 < text.len() => format!("{}/…", &text[..end]),
        _ => text,
    }
}

/// Whether a key inside a secret table says where the secret is, not what it is.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// `http://user:password@host`: hides what stands between `://` and `@`.
fn hide_user(bytes: &mut [u8]) {
    let scheme = bytes.windows(3).position(|w| w == b"://").map(|at| at + 3);
    let at_sign = bytes.iter().rposition(|byte| *byte == b'@');
    if let Some((from, to)) = scheme.zip(at_sign).filter(|(from, to)| from < to) {
        hide(&mut bytes[from..to]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_may_stand() {
        for text in [
            "secrets = [{ value = \"canary\", id = \"main\" }]",
            "secrets = [{ valeu = \"canary\" }]",
            "secrets = [\n  { file = \"a\" },\n  \"canary\",\n]",
            "[[sources.a.secrets]]\nvalue = 'canary'",
            "[upstreams.a.headers]\nx-key = \"canary\"",
            "upstreams.a.headers.x-key = \"canary\"",
            "signing_secret = \"canary\"",
            "signing_secret = canary",
            "signing_key = \"canary\"",
            "webhook-key = \"canary\"",
            "bearer = \"canary\"",
            "secret \"canary\"",
            "secret = \"canary\nb = ]",
            "secret = \"\"\"\ncanary\n",
            "secret = 1.canary",
            "secret = canary.canary",
            "tokens = ['canary', ]]",
            "tokens = [ { role = \"read\" ] 'canary'",
            "url = \"http://me:canary@host/\"",
            "# secrets = [{ value = \"canary\" }]",
            "a = 1 # was http://me:canary@host",
            "ecrets = [{ alue = \"canary\" }]",
            "[secret\ncanary]",
            "provider = \"a\"'secrets = [{ value = \"canary\" }]",
            "provider = \"price2'secrets = [{ value = \"canary\" }]",
        ] {
            let shown = mask_secrets(text);
            assert!(!shown.contains("canary"), "{shown}");
            assert_eq!(shown.len(), text.len());
        }
    }

    #[test]
    fn the_rest_is_shown() {
        for text in [
            "listen = \"127.0.0.1:8080\"",
            "[sources.a]\nsecrets = [{ file = \"f\", id = \"1\" }]\npath = \"/a\"",
            "[sources.secret]\n",
            "allow_shared_secret = true",
            "retry = { first = \"1s\", factor = 2.0 }",
            "# a remark",
            "timeout = [",
        ] {
            assert_eq!(mask_secrets(text), text);
        }
    }
}
