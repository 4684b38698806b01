//! Properties of the guards: how bytes are cut into reads decides nothing, and whoever parses behind them finds the same
//! messages.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// A peer that sends its pieces one a read, and then is silent.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    /// Whether it waits until something was written to it.
    answers: bool,
    written: Rc<RefCell<Vec<u8>>>,
}

impl Script {
    fn new(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut pieces = VecDeque::new();
        let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
        while !rest.is_empty() {
            let cut = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            pieces.push_back(rest[..cut].to_vec());
            rest = &rest[cut..];
        }
        Self { pieces, answers: false, written: Rc::default() }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.answers && self.written.borrow().is_empty() {
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Pending };
        let rest = piece.split_off(piece.len().min(to.remaining()));
        to.put_slice(&piece);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a guard shows until it has nothing more; and how it ended, if it did.
fn shown(mut guard: impl AsyncRead + Unpin, room: usize) -> (Vec<u8>, Option<String>) {
    let (mut all, mut space) = (Vec::new(), vec![0; room]);
    loop {
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Pending => return (all, None),
            Poll::Ready(Err(e)) => return (all, Some(e.to_string())),
            Poll::Ready(Ok(())) => {
                assert!(!buf.filled().is_empty(), "an end nobody sent");
                all.extend_from_slice(buf.filled());
            }
        }
    }
}

fn guard_requests(bytes: &[u8], cuts: &[usize], room: usize) -> (Vec<u8>, usize, Option<(bool, Violation)>) {
    let turns = Rc::new(Turns::default());
    let (all, error) =
        shown(RequestGuard::new(Script::new(bytes, cuts), Rc::clone(&turns), &Limits::EDGE), room);
    assert_eq!(error, None);
    (all, usize::try_from(turns.heads.get()).unwrap(), turns.broken.get().map(|b| (b.in_body, b.violation)))
}

fn guard_response(bytes: &[u8], cuts: &[usize], asked: Asked) -> (Vec<u8>, Option<String>) {
    let asked = Rc::new(Cell::new(Some(asked)));
    shown(ResponseGuard::new(Script::new(bytes, cuts), asked, &Limits::EDGE), 8192)
}

/// What hyper makes of requests without a guard: their paths, how many bodies came to their end, and what it answered.
fn hyper_requests(bytes: &[u8]) -> (Vec<String>, usize, String) {
    let (paths, whole) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let script = Script::new(bytes, &[]);
    let written = Rc::clone(&script.written);
    let (seen, ended) = (Rc::clone(&paths), Rc::clone(&whole));
    let service = service_fn(move |request: http::Request<Incoming>| {
        seen.borrow_mut().push(request.uri().to_string());
        let ended = Rc::clone(&ended);
        async move {
            if request.into_body().collect().await.is_ok() {
                ended.set(ended.get() + 1);
            }
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let mut served = pin!(builder.max_buf_size(HEAD_BUFFER).serve_connection(TokioIo::new(script), service));
    for _ in 0..100 {
        if served.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            break;
        }
    }
    let answers = String::from_utf8_lossy(&written.borrow()).into_owned();
    (paths.take(), whole.get(), answers)
}

/// What hyper makes of an answer without a guard: the length of its body, or `None` while it has not ended.
fn hyper_response(bytes: &[u8]) -> Result<Option<usize>, String> {
    let script = Script { answers: true, ..Script::new(bytes, &[]) };
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(script)).await.unwrap();
        let asking = async {
            let request = http::Request::new(Empty::<Bytes>::new());
            let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
            Ok(body.to_bytes().len())
        };
        let mut connection = pin!(connection);
        let mut asking = pin!(asking);
        std::future::poll_fn(|cx| {
            let _until_the_answer = connection.as_mut().poll(cx);
            asking.as_mut().poll(cx)
        })
        .await
    };
    let mut exchange = pin!(exchange);
    for _ in 0..20 {
        if let Poll::Ready(answer) = exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return answer.map(Some);
        }
    }
    Ok(None)
}

/// A body with the fields that delimit it, and its length.
fn body() -> impl Strategy<Value = (String, Vec<u8>, usize)> {
    let chunk = (proptest::collection::vec(any::<u8>(), 1..20), "(;[a-z=\"]{0,5})?", any::<bool>());
    let trailers = "(X-[A-Z]{1,3}: ?[a-z]{0,3}\r\n){0,2}";
    prop_oneof![
        Just((String::new(), Vec::new(), 0)),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|b| (
            format!("Content-Length: {}\r\n", b.len()),
            b.clone(),
            b.len()
        )),
        (proptest::collection::vec(chunk, 0..4), trailers).prop_map(|(chunks, trailers)| {
            let (mut body, mut length) = (Vec::new(), 0);
            for (data, extension, upper) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("0{:x}", data.len()) };
                body.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
                length += data.len();
                body.extend_from_slice(&data);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            ("Transfer-Encoding: chunked\r\n".to_owned(), body, length)
        }),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let line =
        "(\r\n)?(GET|POST|PUT|x-y) (/[a-z%{|.?=/]{0,8}|http://[a-z.]{1,5}:80/[a-z]{0,3}) HTTP/1\\.[01]\r\n";
    let fields = "([A-Za-z!_-]{1,6}:[ \t]?[ -~\t]{0,6}\r\n){0,3}";
    (line, fields, body()).prop_map(|(line, fields, (framing, body, _))| {
        [format!("{line}{fields}Host: a\r\n{framing}\r\n").as_bytes(), &body[..]].concat()
    })
}

fn response() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let line = "(HTTP/1\\.1 10[023] [a-z]{0,3}\r\n(X: y\r\n)?\r\n){0,2}HTTP/1\\.1 (200|404|500|599)( [a-z ]{0,5})?\r\n";
    let fields = "([A-Z][A-Za-z_-]{1,6}:[ \t]?[ -~\t]{0,6}\r\n){0,3}";
    (line, fields, body()).prop_filter_map(
        "delimited by the end",
        |(line, fields, (framing, body, length))| {
            let head = format!("{line}{fields}{framing}\r\n");
            (!framing.is_empty()).then(|| ([head.as_bytes(), &body[..]].concat(), length))
        },
    )
}

/// Bytes with a few of them replaced, put in or taken out: mostly by what breaks parsers.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => proptest::sample::select(b"\r\n\0 \t:;,+-0x9aF#/1".to_vec()),
        1 => any::<u8>()
    ];
    let change = (any::<proptest::sample::Index>(), 0..4_u8, byte);
    (bytes, proptest::collection::vec(change, 0..3)).prop_map(|(mut bytes, changes)| {
        for (at, kind, byte) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), proptest::collection::vec(1..30_usize, 1..6)]
}

/// Whether the message may ask for another protocol, which hyper alone does not wait for.
fn asks(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    text.contains("upgrade") || text.contains("connect")
}

proptest! {
    #[test]
    fn how_requests_are_cut_into_reads_decides_nothing(
        bytes in mutated(proptest::collection::vec(request(), 1..4).prop_map(|r| r.concat())),
        cuts in cuts(), room in 1..100_usize,
    ) {
        let whole = guard_requests(&bytes, &[], 8192);
        prop_assert_eq!(&whole, &guard_requests(&bytes, &cuts, 8192));
        prop_assert_eq!(&whole, &guard_requests(&bytes, &[], room));
        prop_assert_eq!(&whole, &guard_requests(&bytes, &cuts, room));
        prop_assert!(bytes.starts_with(&whole.0), "only what was sent, and in order");
    }

    #[test]
    fn good_requests_are_shown_whole(requests in proptest::collection::vec(request(), 1..4)) {
        let bytes = requests.concat();
        prop_assume!(!asks(&bytes));
        let lies = requests.iter().any(|r| r.windows(9).any(|w| w == b"HTTP/1.0\r") && r.windows(7).any(|w| w == b"chunked"));
        let (all, heads, broken) = guard_requests(&bytes, &[], 8192);
        if lies {
            prop_assert!(broken.is_some());
        } else {
            prop_assert_eq!((all, heads, broken), (bytes, requests.len(), None));
        }
    }

    #[test]
    fn hyper_finds_the_requests_that_the_guard_shows_and_refuses_none(
        bytes in mutated(proptest::collection::vec(request(), 1..4).prop_map(|r| r.concat())),
    ) {
        prop_assume!(!asks(&bytes));
        let (all, heads, broken) = guard_requests(&bytes, &[], 8192);
        // hyper stops by itself behind what closes the connection.
        let closes = all.windows(8).any(|w| w == b"HTTP/1.0")
            || all.to_ascii_lowercase().windows(11).any(|w| w == b"connection:");
        if closes {
            return Ok(());
        }
        let (paths, whole, answers) = hyper_requests(&all);
        prop_assert!(!answers.contains(" 400 ") && !answers.contains(" 431 ") && !answers.contains(" 414 "), "{}", answers);
        // What came after a body that has not ended was not shown.
        let open = usize::from(broken.is_some_and(|b| b.0));
        prop_assert_eq!(paths.len(), heads);
        prop_assert!(whole + open >= heads || broken.is_none(), "{} of {}", whole, heads);
        prop_assert!(open == 0 || whole < heads, "a broken body became whole");
    }

    #[test]
    fn how_an_answer_is_cut_into_reads_decides_nothing(bytes in mutated(response().prop_map(|r| r.0)), cuts in cuts()) {
        let (whole, error) = guard_response(&bytes, &[], Asked::default());
        let (pieces, same) = guard_response(&bytes, &cuts, Asked::default());
        prop_assert_eq!(&error, &same);
        prop_assert!(bytes.starts_with(&whole) && bytes.starts_with(&pieces));
        prop_assert!(error.is_some() || whole == pieces);
    }

    #[test]
    fn hyper_finds_the_end_of_an_answer_where_the_guard_does(
        (good, length) in response(), bytes in mutated(response().prop_map(|r| r.0)),
    ) {
        prop_assume!(!asks(&good) && !asks(&bytes));
        prop_assert_eq!(guard_response(&good, &[], Asked::default()), (good.clone(), None));
        prop_assert_eq!(hyper_response(&good), Ok(Some(length)));
        let mut longer = good.clone();
        longer.push(b'H');
        prop_assert!(guard_response(&longer, &[], Asked::default()).1.is_some(), "a byte behind the end");
        let (all, error) = guard_response(&bytes, &[], Asked::default());
        if error.is_none() {
            prop_assert!(hyper_response(&all).is_ok());
        }
    }

    #[test]
    fn the_guards_stand_whatever_comes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in cuts()) {
        guard_requests(&bytes, &cuts, 64);
        guard_response(&bytes, &cuts, Asked::default());
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_its_fields_say() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    let head = Asked { head: true, ..Asked::default() };
    assert_eq!(guard_response(answer, &[], head), (answer.to_vec(), None));
    assert!(guard_response(&[&answer[..], b"x"].concat(), &[], head).1.is_some());
}

#[test]
fn bytes_behind_an_accepted_upgrade_are_nobodys_business() {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\0\r\n\n";
    assert!(guard_response(answer, &[], Asked::default()).1.is_some());
    let asked = Asked { upgrade: true, ..Asked::default() };
    assert_eq!(guard_response(answer, &[3], asked), (answer.to_vec(), None));
    let answer = b"HTTP/1.1 200 OK\r\n\r\n\0";
    let asked = Asked { connect: true, ..Asked::default() };
    assert_eq!(guard_response(answer, &[], asked), (answer.to_vec(), None));
}

#[test]
fn bytes_behind_an_upgrade_wait_until_it_is_decided() {
    let asking = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";
    let later = b"\0hello";
    for accepted in [true, false] {
        let turns = Rc::new(Turns::default());
        let script = Script::new(&[&asking[..], later].concat(), &[]);
        let mut guard = RequestGuard::new(script, Rc::clone(&turns), &Limits::EDGE);
        let turn = Turn::new(&turns);
        assert_eq!(shown(&mut guard, 8192), (asking.to_vec(), None));
        assert!(turns.broken.get().is_none());
        if accepted {
            turns.release();
            assert_eq!(shown(&mut guard, 8192), (later.to_vec(), None));
        } else {
            turn.begin();
            drop(turn);
            assert_eq!(shown(&mut guard, 8192), (Vec::new(), None));
            assert!(turns.broken.get().is_some(), "it was another request, and is none");
        }
    }
}

#[test]
fn a_refusal_waits_for_the_answers_before_it() {
    let turns = Rc::new(Turns::default());
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /\n";
    shown(RequestGuard::new(Script::new(bytes, &[]), Rc::clone(&turns), &Limits::EDGE), 8192);
    let turn = Turn::new(&turns);
    assert!(turns.verdict().is_none());
    turn.begin();
    assert!(turns.verdict().is_none());
    drop(turn);
    turns.flushed.set(false);
    assert!(turns.verdict().is_none());
    turns.flushed.set(true);
    assert!(matches!(turns.verdict(), Some(Verdict::Refuse(_))));
}
