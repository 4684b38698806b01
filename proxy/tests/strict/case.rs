//! A case: what is sent, what the backend may see, what the client must get.

use crate::backend::{Script, Seen};
use crate::frames::Said;
use crate::reading::{self, Message, Read};

/// One attack, or the permitted thing beside it.
pub struct Case {
    pub id: String,
    pub clause: &'static str,
    pub steps: Vec<Step>,
    pub http2: bool,
    pub ways: &'static [Way],
    pub script: Script,
    pub sees: Sees,
    pub gets: Gets,
    /// Whether the connection of the case's request must not serve the probe.
    pub fresh: bool,
    /// Whether `upgrade` may reach the backend.
    pub upgrade: bool,
    /// The idle timeout of the service, in milliseconds.
    pub idle: Option<u64>,
    /// How long a head may take, in milliseconds.
    pub head: Option<u64>,
}

/// What a client does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes bytes.
    Write(Vec<u8>),
    /// Waits, milliseconds.
    Pause(u64),
    /// Waits until the peer has said something new.
    Hear,
    /// Says that nothing more comes.
    HalfClose,
    /// Goes away.
    Leave,
}

/// By what the bytes go to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A sidecar's outbound port, then the backend.
    Out,
    /// A permissive sidecar's inbound port, then the backend.
    In,
    /// Two sidecars that speak HTTP/1.1.
    Mesh1,
    /// Two sidecars that speak HTTP/2.
    Mesh2,
    /// A sidecar's outbound port, then a backend that speaks HTTP/2.
    ToH2,
}

/// Both edges at which a stranger's bytes arrive.
pub const EDGES: &[Way] = &[Way::Out, Way::In];
/// Every way to an HTTP/1.1 backend.
pub const ALL: &[Way] = &[Way::Out, Way::In, Way::Mesh1, Way::Mesh2];

/// What the backend may have got, the probe apart.
#[derive(Clone, Debug)]
pub enum Sees {
    /// Not a byte.
    Nothing,
    /// No whole request.
    NoWhole,
    /// Exactly these whole requests and nothing else.
    Each(Vec<Want>),
    /// Exactly this request, and these bytes behind it through a tunnel.
    Tunnel(Want, Vec<u8>),
    /// One of these.
    Either(Vec<Sees>),
}

/// A request as it must have arrived.
#[derive(Clone, Debug, Default)]
pub struct Want {
    line: String,
    has: Vec<String>,
    has_one: Vec<String>,
    lacks: Vec<String>,
    body: Option<Vec<u8>>,
    trailers: Option<Vec<String>>,
}

/// What the client must have got.
#[derive(Clone, Debug)]
pub enum Gets {
    /// Whole answers with these statuses and nothing else; over HTTP/2 on the streams 1, 3, and so on.
    Answers(Vec<u16>),
    /// A refusal of the sidecar, with a reason, and over HTTP/1.1 the end of the connection.
    Refused(u16, &'static str),
    /// A refusal, after which the connection may live.
    Told(u16, &'static str),
    /// The end of the connection (of stream 1, over HTTP/2) without a whole answer.
    Cut,
    /// Over HTTP/2: the stream or the connection is ended with an error, or the request refused with 4xx.
    NotServed,
    /// Over HTTP/2: GOAWAY with an error, or the end of the connection.
    Ended,
    /// One of these.
    Either(Vec<Gets>),
    /// What a function says.
    That(&'static str, fn(&Got) -> bool),
}

/// What a client has got.
#[derive(Debug, Default)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub closed: bool,
    pub method: String,
    pub http2: Option<Said>,
}

impl Got {
    /// The final answers that are whole, the interim ones, and whether something else is left.
    pub fn answers(&self) -> (Vec<Message>, Vec<Message>, Option<Read>) {
        let (mut finals, mut interim, mut rest) = (Vec::new(), Vec::new(), &self.bytes[..]);
        loop {
            match reading::answer(rest, &self.method, self.closed) {
                Read::Nothing => return (finals, interim, None),
                Read::Whole(message, length) => {
                    let list = if message.status() < 200 { &mut interim } else { &mut finals };
                    list.push(message);
                    rest = &rest[length..];
                }
                other => return (finals, interim, Some(other)),
            }
        }
    }

    /// The only answer, if it is whole and nothing else is there.
    pub fn only(&self) -> Option<Message> {
        let (mut finals, _, rest) = self.answers();
        if finals.len() == 1 && rest.is_none() { finals.pop() } else { None }
    }
}

impl Case {
    fn new(id: impl Into<String>, clause: &'static str) -> Self {
        Self {
            id: id.into(),
            clause,
            steps: Vec::new(),
            http2: false,
            ways: EDGES,
            script: Script::default(),
            sees: Sees::Nothing,
            gets: Gets::Refused(400, "bad_request"),
            fresh: false,
            upgrade: false,
            idle: None,
            head: None,
        }
    }

    /// A client of HTTP/1.1 writes `bytes`. Unless told otherwise they are refused at both edges, and nothing of them
    /// reaches the backend.
    pub fn h1(id: impl Into<String>, clause: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { steps: vec![Step::Write(bytes.into())], ..Self::new(id, clause) }
    }

    /// A client of HTTP/2 writes `frames` behind its preface. Unless told otherwise they are not served.
    pub fn h2(id: impl Into<String>, clause: &'static str, frames: impl Into<Vec<u8>>) -> Self {
        let steps = vec![Step::Write([crate::frames::hello(), frames.into()].concat())];
        Self { steps, http2: true, gets: Gets::NotServed, ..Self::new(id, clause) }
    }

    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub fn write(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Write(bytes.into()))
    }

    pub fn by(self, ways: &'static [Way]) -> Self {
        Self { ways, ..self }
    }

    pub fn script(self, script: Script) -> Self {
        Self { script, ..self }
    }

    pub fn sees(self, sees: Sees) -> Self {
        Self { sees, ..self }
    }

    /// Exactly this request reaches the backend, and its answer the client.
    pub fn passes(self, want: Want) -> Self {
        Self { sees: Sees::Each(vec![want]), gets: Gets::Answers(vec![200]), ..self }
    }

    pub fn gets(self, gets: Gets) -> Self {
        Self { gets, ..self }
    }

    pub fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }

    pub fn upgrade(self) -> Self {
        Self { upgrade: true, ..self }
    }

    pub fn head(self, millis: u64) -> Self {
        Self { head: Some(millis), ..self }
    }

    pub fn idle(self, millis: u64) -> Self {
        Self { idle: Some(millis), ..self }
    }
}

impl Want {
    /// A request with this method and target, whatever the version of the backend.
    pub fn of(line: &str) -> Self {
        Self { line: line.into(), ..Self::default() }
    }

    /// `name: value`, exactly so often as given.
    pub fn has(mut self, header: &str) -> Self {
        self.has.push(header.into());
        self
    }

    /// `name` once, whatever its value.
    pub fn has_one(mut self, name: &str) -> Self {
        self.has_one.push(name.into());
        self
    }

    pub fn lacks(mut self, name: &str) -> Self {
        self.lacks.push(name.into());
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    /// `name: value` each.
    pub fn trailers(self, trailers: &[&str]) -> Self {
        Self { trailers: Some(trailers.iter().map(|t| (*t).to_owned()).collect()), ..self }
    }

    fn check(&self, message: &Message) -> Result<(), String> {
        let line = message.line.rsplit_once(' ').map_or("", |(line, _version)| line);
        if line != self.line {
            return Err(format!("{line:?} instead of {:?}", self.line));
        }
        let mut names: Vec<&str> = self.has.iter().filter_map(|h| Some(h.split_once(": ")?.0)).collect();
        names.dedup();
        for name in names {
            let wanted: Vec<&str> =
                self.has.iter().filter_map(|h| h.strip_prefix(name)?.strip_prefix(": ")).collect();
            if message.all(name) != wanted {
                return Err(format!("{name}: {:?} instead of {wanted:?}", message.all(name)));
            }
        }
        if let Some(name) = self.has_one.iter().find(|name| message.all(name).len() != 1) {
            return Err(format!("{name}: {:?}", message.all(name)));
        }
        if let Some(name) = self.lacks.iter().find(|name| message.get(name).is_some()) {
            return Err(format!("{name}: {:?}", message.all(name)));
        }
        if let Some(body) = &self.body
            && *body != message.body
        {
            return Err(format!("a body of {} bytes instead of {}", message.body.len(), body.len()));
        }
        let trailers: Vec<String> = message.trailers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
        if self.trailers.as_ref().is_some_and(|wanted| *wanted != trailers) {
            return Err(format!("trailers {trailers:?}"));
        }
        Ok(())
    }
}

impl Sees {
    /// Whether it is so.
    pub fn check(&self, seen: &Seen) -> Result<(), String> {
        match self {
            Self::Nothing if seen.requests.is_empty() && seen.unfinished.is_empty() => Ok(()),
            Self::NoWhole if seen.requests.is_empty() => Ok(()),
            Self::Nothing | Self::NoWhole => Err("the backend got something".into()),
            Self::Each(wants) => {
                if seen.requests.len() != wants.len() || !seen.unfinished.is_empty() {
                    let got = (seen.requests.len(), seen.unfinished.len());
                    return Err(format!("the backend got {got:?} requests (whole, unfinished)"));
                }
                let mut left: Vec<&Message> = seen.requests.iter().map(|(_, m)| m).collect();
                for want in wants {
                    let fits: Vec<_> = left.iter().map(|m| want.check(m)).collect();
                    match fits.iter().position(Result::is_ok) {
                        Some(at) => drop(left.remove(at)),
                        None => return Err(format!("the backend got {fits:?}")),
                    }
                }
                Ok(())
            }
            Self::Tunnel(want, bytes) => {
                Self::Each(vec![want.clone()]).check(seen)?;
                if *bytes == seen.tunnelled {
                    return Ok(());
                }
                Err(format!("through the tunnel came {:?}", String::from_utf8_lossy(&seen.tunnelled)))
            }
            Self::Either(all) => either(all.iter().map(|s| s.check(seen))),
        }
    }
}

impl Gets {
    /// Whether it is so.
    pub fn check(&self, got: &Got) -> Result<(), String> {
        match (self, &got.http2) {
            (Self::Either(all), _) => either(all.iter().map(|g| g.check(got))),
            (Self::That(what, so), _) => {
                if so(got) {
                    Ok(())
                } else {
                    Err(format!("not so: {what}"))
                }
            }
            (_, Some(said)) => self.check_http2(said, got.closed),
            (_, None) => self.check_http1(got),
        }
    }

    fn check_http1(&self, got: &Got) -> Result<(), String> {
        let (finals, _, rest) = got.answers();
        let statuses: Vec<u16> = finals.iter().map(Message::status).collect();
        let told = format!("the client got {statuses:?}, {rest:?}, closed: {}", got.closed);
        let fits = match self {
            Self::Answers(wanted) => *wanted == statuses && rest.is_none(),
            Self::Refused(status, reason) | Self::Told(status, reason) => {
                let closes = got.closed || matches!(self, Self::Told(..));
                let said = finals.last().and_then(|m| m.get("x-outrigger-reason"));
                statuses.last() == Some(status) && said == Some(reason) && rest.is_none() && closes
            }
            Self::Cut => got.closed && finals.is_empty(),
            _ => return Err("that is for HTTP/2".into()),
        };
        if fits { Ok(()) } else { Err(told) }
    }

    fn check_http2(&self, said: &Said, closed: bool) -> Result<(), String> {
        let stream = said.streams.get(&1).cloned().unwrap_or_default();
        let status = stream.status();
        let ended = closed || said.goaway.is_some_and(|code| code != 0);
        let told = format!("the client got {stream:?}, GOAWAY {:?}, closed: {closed}", said.goaway);
        let fits = match self {
            Self::Answers(wanted) => {
                let on = |at: usize| said.streams.get(&(2 * u32::try_from(at).unwrap() + 1));
                let whole = |at: usize, status: u16| {
                    on(at).is_some_and(|s| {
                        s.ended && s.reset.is_none_or(|code| code == 0) && s.status() == Some(status)
                    })
                };
                wanted.iter().enumerate().all(|(at, status)| whole(at, *status))
            }
            Self::Refused(wanted, reason) | Self::Told(wanted, reason) => {
                status == Some(*wanted) && stream.header("x-outrigger-reason").as_deref() == Some(reason)
            }
            Self::Cut => !stream.ended && (stream.reset.is_some() || ended),
            Self::NotServed => {
                let refused = status.is_some_and(|s| (400..500).contains(&s));
                refused || (status.is_none() && (stream.reset.is_some() || ended))
            }
            Self::Ended => ended,
            Self::Either(_) | Self::That(..) => unreachable!("looked at before"),
        };
        if fits { Ok(()) } else { Err(told) }
    }
}

fn either(all: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let mut why = Vec::new();
    for one in all {
        match one {
            Ok(()) => return Ok(()),
            Err(reason) => why.push(reason),
        }
    }
    Err(why.join("; or "))
}
