//! Forms and queries, held against a decoder written here and against `form_urlencoded`. Input: a key on a line, and a form.

use http::HeaderName;

use crate::{
    given::{URL, cut, headers, seen, text},
    verify::{Refusal, Scheme, SignaturePlace, SignedSpec, form_value},
};

pub fn run(data: &[u8]) {
    let (key, body) = cut(data, b'\n');
    let key = text(key);
    let fields = decode(body);
    let exact: Option<Vec<(String, String)>> = fields
        .iter()
        .map(|(key, value)| Some((exact(key)?, exact(value)?)))
        .collect::<Option<Vec<_>>>()
        .filter(|fields| fields.len() <= 1000);
    if let Some(fields) = &exact {
        let other: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        assert_eq!(*fields, other, "the two decoders differ");
    }
    let values: Vec<&String> =
        exact.iter().flatten().filter(|(other, _)| other == key).map(|(_, value)| value).collect();
    // One that stands twice is none.
    let expected = if let [value] = values.as_slice() { Some((*value).clone()) } else { None };
    assert_eq!(form_value(body, key), expected, "{key:?}");

    let sorted = exact.map(|mut fields| {
        fields.sort();
        fields.dedup();
        fields.into_iter().flat_map(|(key, value)| [key, value]).collect::<String>().into_bytes()
    });
    assert_eq!(content("{form-sorted}", URL, body), sorted, "sorted");

    if !key.is_empty() && !key.contains(['{', '}']) {
        let found = content(&format!("{{form:{key}}}\n{{body}}"), URL, body);
        let readable = expected.filter(|value| !value.contains('\n'));
        let with_body = readable.map(|value| [value.as_bytes(), b"\n", body].concat());
        assert_eq!(found, with_body, "a part of the signed content");
        in_query(key, body);
    }
}

/// The same as a query, whose values are shorter and visible.
fn in_query(key: &str, query: &[u8]) {
    let Ok(query) = std::str::from_utf8(query) else { return };
    let url = format!("{URL}?{query}");
    let found = content(&format!("{{query:{key}}}\n{{body}}"), &url, b"x");
    let values: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(other, _)| other == key)
        .map(|(_, value)| value.into_owned())
        .collect();
    let expected = match values.as_slice() {
        [value] if (1..=255).contains(&value.len()) && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) => {
            Some([value.as_bytes(), b"\nx"].concat())
        }
        _ => None,
    };
    assert_eq!(found, expected, "in a query");
}

fn content(template: &str, url: &str, body: &[u8]) -> Option<Vec<u8>> {
    let place = SignaturePlace::Headers(vec![HeaderName::from_static("x-sig")]);
    let ambiguous = template.contains("sorted").then(|| "keys and values run together".to_owned());
    let spec = SignedSpec { place, ambiguous, ..SignedSpec::new(template) };
    let scheme = Scheme::signed(spec).expect("a template that fits");
    let signature = "0".repeat(64);
    let headers = headers([("x-sig", signature.as_bytes())]);
    match scheme.claim(seen(&headers, url)) {
        Ok(claim) => scheme.short_content(&claim, body, usize::MAX),
        Err(refusal) => {
            assert!(matches!(refusal, Refusal::FieldMissing | Refusal::FieldMalformed), "{refusal}");
            None
        }
    }
}

/// `a=b&c`, with `+` for a space and `%41`; empty items are nothing.
fn decode(form: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let items = form.split(|byte| *byte == b'&').filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (key, value) = cut(item, b'=');
            (plain(key), plain(value))
        })
        .collect()
}

fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let hex = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two digits"));
                rest = &behind[2..];
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = behind;
    }
    out
}

/// A text that no other bytes are decoded to.
fn exact(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\u{fffd}'))
}
