//! One file out of a ZIP archive, as it is compressed there.
//!
//! An archive keeps a file as deflated bytes (or as they are) with its checksum and length, and that is what a gzip stream is
//! (RFC 1952) but for ten bytes before it: so nothing is decompressed, and no library is needed for it. The archive is part of the program; one
//! that can not be read has no files.

/// The file whose path ends with `place`, as a gzip stream.
pub(super) fn gzip(archive: &[u8], place: &str) -> Option<Vec<u8>> {
    let entry = entries(archive)?.find(|entry| entry.name.ends_with(place.as_bytes()))?;
    let header = archive.get(entry.at..)?;
    let [name, extra] = [26, 28].map(|at| word(header, at));
    let begin = LOCAL_HEADER + usize::from(name?) + usize::from(extra?);
    let kept = header.get(begin..begin.checked_add(entry.compressed)?)?;
    let mut stream = Vec::with_capacity(kept.len() + 23);
    // Deflated, no time, no name, made anywhere.
    stream.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    if entry.method == STORED {
        // The last block, of a kind that is not compressed.
        let length = u16::try_from(kept.len()).ok()?;
        stream.push(1);
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
    } else if entry.method != DEFLATED {
        return None;
    }
    stream.extend(kept);
    stream.extend(entry.checksum.to_le_bytes());
    stream.extend(entry.length.to_le_bytes());
    Some(stream)
}

/// A file as the directory of the archive has it.
struct Entry<'a> {
    name: &'a [u8],
    method: u16,
    checksum: u32,
    compressed: usize,
    length: u32,
    at: usize,
}

/// The directory, found from the end of the archive.
fn entries(archive: &[u8]) -> Option<impl Iterator<Item = Entry<'_>>> {
    let end = archive.windows(4).rposition(|window| window == END)?;
    let end = archive.get(end..)?;
    let (count, at) = (word(end, 10)?, usize::try_from(long(end, 16)?).ok()?);
    let mut rest = archive.get(at..)?;
    Some((0..count).map_while(move |_| {
        let (entry, length) = entry(rest)?;
        rest = rest.get(length..)?;
        Some(entry)
    }))
}

fn entry(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let lengths = [28, 30, 32].map(|at| word(bytes, at).map(usize::from));
    let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
    let entry = Entry {
        name: bytes.get(DIRECTORY_HEADER..DIRECTORY_HEADER + name)?,
        method: word(bytes, 10)?,
        checksum: long(bytes, 16)?,
        compressed: usize::try_from(long(bytes, 20)?).ok()?,
        length: long(bytes, 24)?,
        at: usize::try_from(long(bytes, 42)?).ok()?,
    };
    Some((entry, DIRECTORY_HEADER + name + extra + comment))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// What the end of an archive begins with.
const END: &[u8] = b"PK\x05\x06";
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const LOCAL_HEADER: usize = 30;
const DIRECTORY_HEADER: usize = 46;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_archive_has_no_files() {
        let whole = utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
        assert!(gzip(whole, "/LICENSE").is_some_and(|stream| stream.starts_with(&[0x1f, 0x8b])));
        assert_eq!(gzip(whole, "/no such file"), None);
        let end = whole.windows(4).rposition(|window| window == END).unwrap();
        for cut in [0, 4, 100, whole.len() / 2, end, end + 15] {
            assert!(gzip(&whole[..cut], "/LICENSE").is_none(), "{cut}");
        }
        let mut mangled = whole[whole.len() - 100..].to_vec();
        mangled.extend(b"PK\x05\x06");
        assert_eq!(gzip(&mangled, "/LICENSE"), None);
    }
}
