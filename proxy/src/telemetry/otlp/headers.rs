//! Headers that a collector wants to see, mostly a key: read from a file, and never shown.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Reads a header a line, `name: value`; empty lines and lines that begin with `#` say nothing. The error has every mistake,
/// and nothing of what stands in the file but names.
pub(super) fn read(file: &Path) -> Result<HeaderMap, String> {
    let mut text = String::new();
    let opened = File::open(file).map_err(|why| format!("{}: {why}", file.display()))?;
    let read = opened.take(MOST_BYTES + 1).read_to_string(&mut text);
    read.map_err(|why| format!("{}: {why}", file.display()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(format!("{}: it is longer than {MOST_BYTES} bytes", file.display()));
    }
    headers(&text).map_err(|mistakes| format!("{}: {}", file.display(), mistakes.join("; ")))
}

fn headers(text: &str) -> Result<HeaderMap, Vec<String>> {
    let (mut headers, mut mistakes) = (HeaderMap::new(), Vec::new());
    let lines = text.lines().zip(1..).map(|(line, number): (&str, u32)| (line.trim(), number));
    for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        match one(line) {
            Ok((name, value)) if headers.len() < MOST => drop(headers.append(name, value)),
            Ok(_) => mistakes.push(format!("line {number}: there are more than {MOST} headers")),
            Err(why) => mistakes.push(format!("line {number}: {why}")),
        }
        if mistakes.len() >= MOST {
            break;
        }
    }
    if mistakes.is_empty() { Ok(headers) } else { Err(mistakes) }
}

fn one(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or("it is no header: write NAME: VALUE")?;
    let name: HeaderName =
        name.trim().parse().map_err(|_| "before the colon is no name of a header: write NAME: VALUE")?;
    if OURS.contains(&name) || name.as_str().starts_with("grpc-") {
        return Err(format!("{name} is the sidecar's to say"));
    }
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| format!("the value of {name} has characters that a header can not have"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Said by the sidecar itself, or of one connection.
const OURS: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TRAILER,
    header::TE,
    header::EXPECT,
];
const MOST: usize = 32;
const MOST_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stand_a_line_each_and_are_not_shown() {
        let read = headers("# of the vendor\nX-Api-Key: s3cret\n\n authorization : Bearer a:b \n").unwrap();
        assert_eq!(
            (&read["x-api-key"], &read["authorization"]),
            (&"s3cret".parse().unwrap(), &"Bearer a:b".parse().unwrap())
        );
        let shown = format!("{read:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("Bearer"), "{shown}");
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_without_its_value() {
        let text = "x-key s3cret\nhost: s3cret\nx-a: s3\u{7}cret\ngrpc-timeout: 1S\nx y: s3cret\n";
        let mistakes = headers(text).unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        for (number, mistake) in (1..).zip(&mistakes) {
            assert!(mistake.starts_with(&format!("line {number}: ")) && !mistake.contains("s3"), "{mistake}");
        }
        let many = (0..40).map(|n| format!("x-{n}: 1\n")).collect::<Vec<_>>().concat();
        assert!(headers(&many).unwrap_err()[0].contains("more than 32"));
    }
}
