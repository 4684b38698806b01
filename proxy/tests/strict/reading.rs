//! The judge's own reading of HTTP/1.1 bytes, written from RFC 9112 and stricter than any server: whatever a lenient one
//! could read in another way is a fault. Nothing of the proxy or of its HTTP library is used here.

/// A message as it lies on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or the status line; of an HTTP/2 message the method, the path and `HTTP/2`.
    pub line: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// What came behind the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// Every value of `name`.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The word at `at` of the first line.
    pub fn word(&self, at: usize) -> &str {
        self.line.split(' ').nth(at).unwrap_or_default()
    }

    /// The status, where it is an answer.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }
}

/// How far the bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// There is nothing.
    Nothing,
    /// Not to the end of a message. What is there of it, if its head is whole.
    Part(Option<Message>),
    /// A message, which takes so many bytes.
    Whole(Message, usize),
    /// What must never be sent.
    Fault(String),
}

/// The request at the beginning of `bytes`.
pub fn request(bytes: &[u8]) -> Read {
    let (message, rest) = match head(bytes) {
        Ok(Some(found)) => found,
        Ok(None) if bytes.is_empty() => return Read::Nothing,
        Ok(None) => return Read::Part(None),
        Err(why) => return Read::Fault(why),
    };
    let words: Vec<&str> = message.line.split(' ').collect();
    let sound = matches!(&words[..], [method, target, "HTTP/1.1"] if is_token(method) && is_target(target));
    if !sound {
        return Read::Fault(format!("request line {:?}", message.line));
    }
    if message.all("host").len() != 1 {
        return Read::Fault(format!("{} Host headers", message.all("host").len()));
    }
    match framing(&message) {
        Err(why) => Read::Fault(why),
        Ok(Framing::None) => Read::Whole(message, bytes.len() - rest.len()),
        Ok(framing) => body(message, framing, rest, bytes.len() - rest.len()),
    }
}

/// The answer at the beginning of `bytes`, of a request with `method`. Without framing its body goes on to the end of the
/// connection, which has come if `closed`.
pub fn answer(bytes: &[u8], method: &str, closed: bool) -> Read {
    let (mut message, rest) = match head(bytes) {
        Ok(Some(found)) => found,
        Ok(None) if bytes.is_empty() => return Read::Nothing,
        Ok(None) => return Read::Part(None),
        Err(why) => return Read::Fault(why),
    };
    let version = message.word(0);
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !(100..600).contains(&message.status()) {
        return Read::Fault(format!("status line {:?}", message.line));
    }
    let length = bytes.len() - rest.len();
    let framing = match framing(&message) {
        Ok(framing) => framing,
        Err(why) => return Read::Fault(why),
    };
    let status = message.status();
    if status < 200
        || matches!(status, 204 | 304)
        || method == "HEAD"
        || (method == "CONNECT" && status < 300)
    {
        if status < 200 && framing != Framing::None {
            return Read::Fault(format!("framing in {:?}", message.line));
        }
        return Read::Whole(message, length);
    }
    if framing == Framing::None {
        message.body = rest.to_vec();
        return if closed { Read::Whole(message, bytes.len()) } else { Read::Part(Some(message)) };
    }
    body(message, framing, rest, length)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(message: &Message) -> Result<Framing, String> {
    match (&message.all("content-length")[..], &message.all("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::None),
        ([], ["chunked"]) => Ok(Framing::Chunked),
        ([digits], []) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map(Framing::Length).map_err(|_| format!("Content-Length {digits}"))
        }
        (lengths, codings) => Err(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}

/// The head and what is behind it.
fn head(bytes: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    let mut rest = bytes;
    let mut message = Message::default();
    let Some(first) = line(&mut rest)? else { return Ok(None) };
    message.line = first.iter().map(|b| char::from(*b)).collect();
    match fields(&mut rest)? {
        None => Ok(None),
        Some(headers) => {
            message.headers = headers;
            Ok(Some((message, rest)))
        }
    }
}

type Fields = Vec<(String, String)>;

fn fields(rest: &mut &[u8]) -> Result<Option<Fields>, String> {
    let mut fields = Vec::new();
    loop {
        let Some(line) = line(rest)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let text: String = line.iter().map(|b| char::from(*b)).collect();
        let Some((name, value)) = text.split_once(':') else { return Err(format!("header line {text:?}")) };
        let value = value.strip_prefix(' ').unwrap_or(value);
        let sound = value.chars().all(|c| c == '\t' || !c.is_control() || c > '\u{7f}');
        if !is_token(name) || !sound || value.trim_matches([' ', '\t']) != value {
            return Err(format!("header line {text:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// The next line, which ends with CR LF and has neither inside, nor a NUL.
fn line<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
    let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)) else { return Ok(None) };
    match rest[end..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let line = &rest[..end];
            *rest = &rest[end + 2..];
            Ok(Some(line))
        }
        _ => Err(format!(
            "a bare {:?} behind {:?}",
            char::from(rest[end]),
            String::from_utf8_lossy(&rest[..end])
        )),
    }
}

fn body(mut message: Message, framing: Framing, mut rest: &[u8], head: usize) -> Read {
    let all = head + rest.len();
    match framing {
        Framing::None => Read::Whole(message, head),
        Framing::Length(length) => {
            message.body = rest[..length.min(rest.len())].to_vec();
            if rest.len() < length { Read::Part(Some(message)) } else { Read::Whole(message, head + length) }
        }
        Framing::Chunked => match chunks(&mut message, &mut rest) {
            Err(why) => Read::Fault(why),
            Ok(false) => Read::Part(Some(message)),
            Ok(true) => Read::Whole(message, all - rest.len()),
        },
    }
}

/// Whether the last chunk and what may stand behind it are there.
fn chunks(message: &mut Message, rest: &mut &[u8]) -> Result<bool, String> {
    loop {
        let Some(size) = line(rest)? else { return Ok(false) };
        let text = String::from_utf8_lossy(size).into_owned();
        let sound = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(&text, 16).ok().filter(|_| sound);
        let size = size.ok_or_else(|| format!("chunk size {text:?}"))?;
        if size == 0 {
            return Ok(match fields(rest)? {
                None => false,
                Some(trailers) => {
                    message.trailers = trailers;
                    true
                }
            });
        }
        message.body.extend_from_slice(&rest[..size.min(rest.len())]);
        match rest.get(size..) {
            Some([b'\r', b'\n', behind @ ..]) => *rest = behind,
            None | Some([] | [b'\r']) => return Ok(false),
            Some(_) => return Err("a chunk that does not end with CR LF".into()),
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_target(text: &str) -> bool {
    text == "*" || (text.starts_with('/') && text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'#'))
}

#[test]
fn the_judge_reads_one_way_only() {
    let whole = |bytes: &str| matches!(request(bytes.as_bytes()), Read::Whole(_, n) if n == bytes.len());
    let fault = |bytes: &str| matches!(request(bytes.as_bytes()), Read::Fault(_));
    assert!(whole("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(whole("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"));
    assert!(whole(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n"
    ));
    for broken in [
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ] {
        assert!(fault(broken), "{broken:?}");
    }
    assert!(
        matches!(answer(b"HTTP/1.1 200 OK\r\n\r\nabc", "GET", true), Read::Whole(m, 22) if m.body == b"abc")
    );
    assert!(matches!(answer(b"HTTP/1.1 200 OK\r\n\r\nabc", "GET", false), Read::Part(_)));
}
