//! Classes of bytes, looked up in one table.

/// RFC 9110, section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// What a field's value and a reason phrase are made of (RFC 9110, section 5.5): no controls but the tab.
pub(super) const fn is_text(byte: u8) -> bool {
    CLASS[byte as usize] & TEXT != 0
}

/// Where the first byte stands that is no text. Eight at a time: most of what a head has is text.
pub(super) fn first_beside_text(bytes: &[u8]) -> Option<usize> {
    let (eights, rest) = bytes.as_chunks::<8>();
    for (at, eight) in eights.iter().enumerate() {
        let found = beside_text(u64::from_le_bytes(*eight));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|b| !is_text(*b))?;
    Some(eights.len() * 8 + at)
}

/// The upper bit of each of eight bytes that is no text. Nothing is carried from one byte to the next, so each is exact.
const fn beside_text(eight: u64) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const LOWER: u64 = EACH * 0x7f;
    const UPPER: u64 = EACH * 0x80;
    let lower = eight & LOWER;
    let below_blank = !((lower + EACH * (0x80 - 0x20)) | eight);
    let (tab, delete) = (eight ^ (EACH * 0x09), eight ^ LOWER);
    let no_tab = ((tab & LOWER) + LOWER) | tab;
    let is_delete = !(((delete & LOWER) + LOWER) | delete);
    ((below_blank & no_tab) | is_delete) & UPPER
}

/// What a request's target is made of: less than what the parser behind us takes, and a little more than RFC 3986, since
/// clients send braces and bars as they are. No `#`: what follows it would be lost.
pub(super) const fn is_target(byte: u8) -> bool {
    CLASS[byte as usize] & TARGET != 0
}

const TOKEN: u8 = 1;
const TEXT: u8 = 2;
const TARGET: u8 = 4;

const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "an index below 256")]
        let byte = at as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            class |= TEXT;
        }
        if byte > b' ' && byte < 0x7f && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`') {
            class |= TARGET;
        }
        table[at] = class;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_at_a_time_find_what_one_at_a_time_finds(
            bytes in proptest::collection::vec(prop_oneof![8 => 0x20_u8..0x7f, 2 => any::<u8>(), 1 => Just(b'\t')], 0..40),
        ) {
            prop_assert_eq!(first_beside_text(&bytes), bytes.iter().position(|b| !is_text(*b)));
        }
    }

    #[test]
    fn each_byte_is_told_in_each_place_of_eight() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                for around in [b' ', b'\t', 0xff] {
                    let mut eight = [around; 8];
                    eight[at] = byte;
                    let found = (!is_text(byte)).then_some(at);
                    assert_eq!(first_beside_text(&eight), found, "{byte:#x} at {at}");
                }
            }
        }
    }
}
