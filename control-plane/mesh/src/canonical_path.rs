//! The one spelling of a path. Whatever could be read in two ways, by us and by the application, is refused.
//!
//! It is made once, before routing, policy, telemetry and forwarding; `outrigger explain` makes it the same way.

use std::borrow::Cow;

/// Resolves dot segments (RFC 3986, section 5.2.4), joins repeated slashes, decodes what need not be encoded, encodes what
/// must be and writes digits in upper case. Refused is what has two readings: encoded slashes, backslashes and NUL, dots
/// before a `;`, raw or encoded controls, bad escapes, bytes that only a careless reader takes for ASCII (overlong UTF-8),
/// and dot segments that lead above the root.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if is_canonical(path) {
        return Ok(path.into());
    }
    if !path.starts_with('/') {
        return Err("the path does not begin with '/'");
    }
    let decoded = normalize_escapes(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded[1..].split('/').peekable();
    let mut slash = false;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let name = segment.split([';']).next().and_then(|s| s.split("%3B").next()).unwrap_or_default();
        match name {
            "." | ".." if name != segment => return Err("the path has dots before a ';'"),
            "." => slash |= last,
            ".." => {
                kept.pop().ok_or("the path leads above the root")?;
                slash |= last;
            }
            "" if segment.is_empty() => slash |= last,
            _ => kept.push(segment),
        }
    }
    let mut canonical = String::with_capacity(decoded.len());
    for segment in &kept {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if slash || kept.is_empty() {
        canonical.push('/');
    }
    Ok(canonical.into())
}

/// Whether a path is surely canonical: one pass without an allocation over what nearly all paths are made of.
fn is_canonical(path: &str) -> bool {
    let bytes = path.as_bytes();
    let plain = |b: u8| is_unreserved(b) || b"/!$&'()*+,=:@".contains(&b);
    bytes.first() == Some(&b'/')
        && bytes.iter().all(|b| plain(*b))
        && !bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.")
}

/// RFC 3986, section 2.3.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn normalize_escapes(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut bytes = path.bytes();
    let mut before = 0;
    while let Some(byte) = bytes.next() {
        let lead = std::mem::take(&mut before);
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit().ok_or(BAD_ESCAPE)?, digit().ok_or(BAD_ESCAPE)?);
                let decoded = u8::try_from(high * 16 + low).map_err(|_| BAD_ESCAPE)?;
                match decoded {
                    b'/' | b'\\' => return Err("the path has an encoded slash or backslash"),
                    0..=0x1f | 0x7f => return Err("the path has an encoded control character"),
                    0x80..=0xbf
                        if matches!((lead, decoded), (0xc0 | 0xc1, _) | (0xe0, ..0xa0) | (0xf0, ..0x90)) =>
                    {
                        return Err("the path has overlong UTF-8");
                    }
                    b if is_unreserved(b) => out.push(char::from(b)),
                    b => {
                        before = b;
                        escape(b, &mut out);
                    }
                }
            }
            b'\\' => return Err("the path has a backslash"),
            b'#' => return Err("the path has a '#'"),
            0..=0x20 | 0x7f.. => return Err("the path has a character that must be encoded"),
            // Sent as they are by many, and the same as their escapes to every reader.
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => escape(byte, &mut out),
            b => out.push(char::from(b)),
        }
    }
    Ok(out)
}

fn escape(byte: u8, out: &mut String) {
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

const BAD_ESCAPE: &str = "the path has a '%' without two hex digits behind it";
const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_is_one_spelling_of_a_path() {
        for (given, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61/%7e", "/a/~"),
            ("/%2e%2e/a", "!"),
            ("/a/%2E%2e/b", "/b"),
            ("/a%3ab%c3%a4", "/a%3Ab%C3%A4"),
            ("/.hidden", "/.hidden"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/..", "!"),
            ("/a/../../b", "!"),
            ("/a%2fb", "!"),
            ("/a%5Cb", "!"),
            ("/a\\b", "!"),
            ("/a%00", "!"),
            ("/a%0d%0a", "!"),
            ("/a%", "!"),
            ("/a%zz", "!"),
            ("/a%+1", "!"),
            ("/..;/b", "!"),
            ("/a/..;x/b", "!"),
            ("/.;/b", "!"),
            ("/a#b", "!"),
            ("/..%3b/", "!"),
            ("/a[1]/{b}|^", "/a%5B1%5D/%7Bb%7D%7C%5E"),
            ("/%5b%7b", "/%5B%7B"),
            ("/%c0%ae%c0%ae/", "!"),
            ("/%e0%80%af", "!"),
            ("/%f0%80%80%af", "!"),
            ("/%e2%82%ac%c3%80", "/%E2%82%AC%C3%80"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("a", "!"),
            ("/ä", "!"),
        ] {
            let got = canonical_path(given);
            assert_eq!(got.as_deref().unwrap_or("!"), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_canonical_and_has_no_dots(path in "/[a-c./%;2eE5f\\\\{c0aeB3]{0,24}|\\PC{0,24}") {
            if let Ok(once) = canonical_path(&path) {
                let twice = canonical_path(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                let dotted = once.split('/').any(|s| s == "." || s == "..");
                prop_assert!(!dotted && !once.contains("//") && once.starts_with('/'), "{}", once);
            }
        }
    }
}
