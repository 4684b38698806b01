//! Classes of bytes, looked up in one table.

/// RFC 9110, section 5.6.2.
pub(super) const fn is_token(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// What a field's value and a reason phrase are made of (RFC 9110, section 5.5): no controls but the tab.
pub(super) const fn is_text(byte: u8) -> bool {
    CLASS[byte as usize] & TEXT != 0
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
