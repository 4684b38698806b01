//! Just enough of HPACK (RFC 7541): headers are written as plain literals, so that any byte can be put on the wire, and
//! read in every form a library may choose.

/// A header field as bytes.
pub type Field = (Vec<u8>, Vec<u8>);

/// `fields` as literals without indexing and without Huffman coding.
pub fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

/// `fields` as literals that go into the peer's table.
pub fn encode_indexed<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x40);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 7, 0, bytes.len());
    block.extend_from_slice(bytes);
}

fn integer(block: &mut Vec<u8>, prefix: u32, flags: u8, value: usize) {
    let full = (1_usize << prefix) - 1;
    let byte = |value: usize| u8::try_from(value).expect("a byte");
    if value < full {
        return block.push(flags | byte(value));
    }
    block.push(flags | byte(full));
    let mut left = value - full;
    while left >= 128 {
        block.push(byte(left % 128) | 128);
        left /= 128;
    }
    block.push(byte(left));
}

/// Reads header blocks, one after the other, of one direction of a connection.
#[derive(Debug, Default)]
pub struct Decoder {
    dynamic: Vec<Field>,
}

impl Decoder {
    /// The fields of a block; `None` if it can not be read.
    pub fn decode(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = read_integer(&mut block, 7)?;
                fields.push(self.at(index)?);
            } else if first & 0xe0 == 0x20 {
                // A change of the table's size; old entries may only be used by who knows they are still there.
                read_integer(&mut block, 5)?;
            } else {
                let indexed = first & 0x40 != 0;
                let index = read_integer(&mut block, if indexed { 6 } else { 4 })?;
                let name = if index == 0 { read_string(&mut block)? } else { self.at(index)?.0 };
                let field = (name, read_string(&mut block)?);
                if indexed {
                    self.dynamic.insert(0, field.clone());
                }
                fields.push(field);
            }
        }
        Some(fields)
    }

    fn at(&self, index: usize) -> Option<Field> {
        match STATIC.get(index.checked_sub(1)?) {
            Some((name, value)) => Some((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
            None => self.dynamic.get(index - 1 - STATIC.len()).cloned(),
        }
    }
}

fn read_integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let full = (1_usize << prefix) - 1;
    let mut next = || {
        let (first, rest) = block.split_first()?;
        *block = rest;
        Some(usize::from(*first))
    };
    let mut value = next()? & full;
    if value == full {
        for shift in [0, 7, 14, 21] {
            let byte = next()?;
            value += (byte & 127) << shift;
            if byte & 128 == 0 {
                return Some(value);
            }
        }
        return None;
    }
    Some(value)
}

fn read_string(block: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = block.first()? & 0x80 != 0;
    let length = read_integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length)?;
    *block = rest;
    if coded { huffman(bytes) } else { Some(bytes.to_vec()) }
}

/// The code is canonical: it follows from the lengths alone.
fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut symbols: Vec<usize> = (0..LENGTHS.len()).collect();
    symbols.sort_by_key(|s| (LENGTHS[*s], *s));
    let mut table = std::collections::HashMap::new();
    let (mut code, mut length) = (0_u32, 0);
    for symbol in symbols {
        code <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        table.insert((length, code), u8::try_from(symbol).ok()?);
        code += 1;
    }
    let (mut out, mut code, mut length) = (Vec::new(), 0_u32, 0_u8);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some(symbol) = table.get(&(length, code)) {
            out.push(*symbol);
            (code, length) = (0, 0);
        } else if length > 30 {
            return None;
        }
    }
    Some(out)
}

#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[test]
fn huffman_and_tables_agree_with_the_examples_of_the_rfc() {
    // RFC 7541, C.4.1 and C.4.2.
    let first = [
        0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];
    let mut decoder = Decoder::default();
    let fields = decoder.decode(&first).unwrap();
    assert_eq!(fields[3], (b":authority".to_vec(), b"www.example.com".to_vec()));
    let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
    let fields = decoder.decode(&second).unwrap();
    assert_eq!(fields[3], (b":authority".to_vec(), b"www.example.com".to_vec()));
    assert_eq!(fields[4], (b"cache-control".to_vec(), b"no-cache".to_vec()));
    let long = "v".repeat(300);
    assert_eq!(Decoder::default().decode(&encode(&[("x", &long)])).unwrap()[0].1, long.as_bytes());
}
