//! How a signature is written. Decoding is exact: one text per signature, so that nobody can alter a signature
//! and have it still count.

use std::ops::RangeInclusive;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};

/// The longest signature there is, in bytes: RSA with 8192 bits.
pub(super) const SIGNATURE_BYTES_MAX: usize = 1024;

/// How the bytes of a signature are written as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Hexadecimal in lower case.
    Hex,
    /// Hexadecimal, upper case or mixed allowed: only where the provider's own library takes it.
    HexAnyCase,
    /// Base64, standard alphabet, padded, canonical.
    Base64,
    /// Base64, URL alphabet, without padding, canonical.
    Base64Url,
}

impl Encoding {
    /// All of them, by the name they have in a preset.
    pub const ALL: [(&'static str, Self); 4] = [
        ("hex", Self::Hex),
        ("hex-any-case", Self::HexAnyCase),
        ("base64", Self::Base64),
        ("base64url", Self::Base64Url),
    ];

    /// The bytes, if their number is in this range.
    pub(super) fn decode(self, text: &[u8], lengths: RangeInclusive<usize>) -> Option<Vec<u8>> {
        debug_assert!(*lengths.end() <= SIGNATURE_BYTES_MAX);
        let mut buffer = [0; SIGNATURE_BYTES_MAX];
        let bytes = match self {
            Self::Hex => decode_hex(text, false)?,
            Self::HexAnyCase => decode_hex(text, true)?,
            Self::Base64 => Base64::decode(text, &mut buffer).ok()?.to_vec(),
            Self::Base64Url => Base64UrlUnpadded::decode(text, &mut buffer).ok()?.to_vec(),
        };
        lengths.contains(&bytes.len()).then_some(bytes)
    }

    /// The name that it has in a preset.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, encoding)| *encoding == self).map_or("", |(name, _)| name)
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexAnyCase => encode_hex(bytes),
            Self::Base64 => Base64::encode_string(bytes),
            Self::Base64Url => Base64UrlUnpadded::encode_string(bytes),
        }
    }
}

/// Bytes from hexadecimal text; `None` if it has odd length or another character. Which digits it has does not show in
/// the time: there is no branch on one, and no table that is read at one.
pub fn decode_hex(text: &[u8], any_case: bool) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(pairs.len());
    let mut wrong = 0;
    for [high, low] in pairs {
        let (high, low) = (nibble(*high, any_case), nibble(*low, any_case));
        wrong |= high | low;
        bytes.push(high << 4 | low & 0x0f);
    }
    (wrong < NO_DIGIT).then_some(bytes)
}

/// Or a bit that no digit has.
const NO_DIGIT: u8 = 0x10;

/// The value of a digit, or [`NO_DIGIT`].
fn nibble(digit: u8, any_case: bool) -> u8 {
    // All ones where `value` is less, else zero.
    let below = |value: u8, bound: u8| ((u16::from(value).wrapping_sub(u16::from(bound))) >> 8) as u8;
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | u8::from(any_case) << 5).wrapping_sub(b'a');
    let (is_decimal, is_letter) = (below(decimal, 10), below(letter, 6));
    (decimal & is_decimal) | (letter.wrapping_add(10) & is_letter) | (NO_DIGIT & !(is_decimal | is_letter))
}

/// Lower-case hexadecimal.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signature_has_exactly_one_writing() {
        let accepted =
            |encoding: Encoding, text: &str, length| encoding.decode(text.as_bytes(), length..=length).is_some();
        assert!(accepted(Encoding::Hex, "00ff", 2));
        for wrong in ["00FF", "00f", "0 ff", "00ff ", "0xff", "00fg", "", "00ff00"] {
            assert!(!accepted(Encoding::Hex, wrong, 2), "{wrong}");
        }
        assert!(accepted(Encoding::HexAnyCase, "00Ff", 2));
        assert!(accepted(Encoding::Base64, "AP8=", 2));
        // Non-canonical trailing bits, missing or extra padding, the other alphabet, white space.
        for wrong in ["AP9=", "AP8", "AP8==", "AP8= ", " AP8=", "AP8=\n", "-_8=", "AP8=AP8="] {
            assert!(!accepted(Encoding::Base64, wrong, 2), "{wrong}");
        }
        assert!(accepted(Encoding::Base64Url, "-_8", 2));
        for wrong in ["-_9", "-_8=", "+/8"] {
            assert!(!accepted(Encoding::Base64Url, wrong, 2), "{wrong}");
        }
    }

    #[test]
    fn every_byte_is_a_hexadecimal_digit_or_none() {
        for byte in 0..=u8::MAX {
            let digit = char::from(byte).to_digit(16).filter(|_| byte.is_ascii());
            let decoded = |text: [u8; 2], any_case| decode_hex(&text, any_case).map(|bytes| u32::from(bytes[0]));
            assert_eq!(decoded([b'0', byte], true), digit, "{byte}");
            assert_eq!(decoded([byte, b'1'], true), digit.map(|digit| digit * 16 + 1), "{byte}");
            assert_eq!(decoded([b'0', byte], false), digit.filter(|_| !byte.is_ascii_uppercase()), "{byte}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes in prop::collection::vec(any::<u8>(), 0..=64)) {
            for (_, encoding) in Encoding::ALL {
                prop_assert_eq!(encoding.decode(encoding.encode(&bytes).as_bytes(), bytes.len()..=bytes.len()), Some(bytes.clone()));
            }
        }
        #[test]
        fn what_decodes_is_what_would_be_encoded(text in "[A-Za-z0-9+/_=-]{0,90}") {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                for length in 0..=64 {
                    if let Some(bytes) = encoding.decode(text.as_bytes(), length..=length) {
                        prop_assert_eq!(encoding.encode(&bytes), text.clone());
                    }
                }
            }
        }
    }
}
