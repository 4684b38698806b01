//! Floods over HTTP/2.

use std::time::Duration;

use outrigger_proxy::http::edges::Cut;
use outrigger_testkit::{Behaviour, BodyOf, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, LAST_LINE, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, get, line, line_kept, opening, post,
};
use crate::{Ground, told};

const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const CALM: u32 = 0xb;
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// `round` is sent again and again: the connection is cut because of one of `why`.
async fn is_cut(why: &[Cut], opening: Vec<u8>, round: impl FnMut(u32) -> Vec<u8>) {
    let ground = Ground::new().await.delays(Duration::from_secs(5));
    let told = ground.flood(opening, round).await;
    let counted: Vec<_> = Cut::ALL.into_iter().filter(|cut| ground.cuts(*cut) > 0).collect();
    assert!(!counted.is_empty() && counted.iter().all(|cut| why.contains(cut)), "{counted:?}, {told:?}");
    // Where it arrives before the end: a socket that still has unread bytes is closed the hard way.
    assert!(told.goaway.iter().all(|code| [0, CALM].contains(code)), "{told:?}");
    ground.is_quiet().await;
}

/// Many times the same frame.
fn many(frame: &[u8]) -> impl FnMut(u32) -> Vec<u8> {
    let times = (16 * 1024 / frame.len()).max(1);
    let round = frame.repeat(times);
    move |_| round.clone()
}

/// The number of the `n`th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let round = |round: u32| {
        let pair =
            |n| [frame(HEADERS, WHOLE, n, &get("cart", "/")), frame(RST_STREAM, 0, n, &CANCEL)].concat();
        (0..50).flat_map(|n| pair(stream(round * 50 + n))).collect()
    };
    is_cut(&[Cut::RapidReset, Cut::Calm], opening(&[]), round).await;
}

/// Each request is looked at before it is reset: h2 alone would bear that for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset_of_what_was_looked_at() {
    let ground = Ground::new().await.delays(Duration::from_secs(5));
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        client.write_all(&opening(&[])).await.unwrap();
        for round in 0.. {
            let streams = (round * 50..round * 50 + 50).map(stream);
            let mut requests: Vec<u8> =
                streams.clone().flat_map(|n| frame(HEADERS, WHOLE, n, &get("cart", "/"))).collect();
            requests.extend(frame(PING, 0, 0, &[0; 8]));
            let resets: Vec<u8> = streams.flat_map(|n| frame(RST_STREAM, 0, n, &CANCEL)).collect();
            if client.write_all(&requests).await.is_err() {
                return;
            }
            // The answer to the ping says that the requests were seen.
            let mut answer = [0; 1024];
            if !matches!(client.read(&mut answer).await, Ok(1..)) || client.write_all(&resets).await.is_err()
            {
                return;
            }
        }
    };
    ground.during(attack).await;
    assert_eq!((ground.cuts(Cut::RapidReset), ground.cuts(Cut::Calm)), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_that_the_sidecar_is_made_to_send() {
    let too_much = (u32::MAX >> 1).to_be_bytes();
    let round = move |round: u32| {
        let pair =
            |n| [frame(HEADERS, WHOLE, n, &get("cart", "/")), frame(WINDOW_UPDATE, 0, n, &too_much)].concat();
        (0..20).flat_map(|n| pair(stream(round * 20 + n))).collect()
    };
    is_cut(&[Cut::MadeToReset, Cut::Calm], opening(&[]), round).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_limit() {
    let round = |round: u32| {
        (0..50).flat_map(|n| frame(HEADERS, WHOLE, stream(round * 50 + n), &get("cart", "/"))).collect()
    };
    is_cut(&[Cut::MadeToReset, Cut::Calm], opening(&[]), round).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_flood() {
    let begun = [opening(&[]), frame(HEADERS, END_STREAM, 1, &get("cart", "/"))].concat();
    let piece = frame(CONTINUATION, 0, 1, &line("x", &"v".repeat(1_000)));
    is_cut(&[Cut::Calm], begun, many(&piece)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_continuation_flood() {
    let begun = [opening(&[]), frame(HEADERS, END_STREAM, 1, &get("cart", "/"))].concat();
    is_cut(&[Cut::Calm, Cut::Continuation], begun, many(&frame(CONTINUATION, 0, 1, &[]))).await;
}

/// Few continuations in each block, but many blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuations_of_many_blocks() {
    let round = |n| {
        let mut all = frame(HEADERS, END_STREAM, stream(n), &get("cart", "/"));
        (0..4).for_each(|_| all.extend(frame(CONTINUATION, 0, stream(n), &[])));
        all.extend(frame(CONTINUATION, END_HEADERS, stream(n), &[]));
        [all, frame(RST_STREAM, 0, stream(n), &CANCEL)].concat()
    };
    is_cut(&[Cut::Calm, Cut::Continuation, Cut::RapidReset], opening(&[]), round).await;
}

/// One line of 4 KiB in the table, and then a byte for each time it is meant: 64 MiB a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hpack_bomb() {
    let kept = [get("cart", "/"), line_kept("x", &"v".repeat(4_000))].concat();
    let begun = [opening(&[]), frame(HEADERS, WHOLE, 1, &kept)].concat();
    let bomb = [get("cart", "/"), vec![LAST_LINE; 16_000]].concat();
    let round = move |n| frame(HEADERS, WHOLE, stream(n + 1), &bomb);
    is_cut(&[Cut::Calm, Cut::MadeToReset], begun, round).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookie_bomb() {
    let kept = [get("cart", "/"), line_kept("cookie", "a=b")].concat();
    let begun = [opening(&[]), frame(HEADERS, WHOLE, 1, &kept)].concat();
    let bomb = [get("cart", "/"), vec![LAST_LINE; 16_000]].concat();
    let round = move |n| frame(HEADERS, WHOLE, stream(n + 1), &bomb);
    is_cut(&[Cut::Calm, Cut::MadeToReset], begun, round).await;
}

/// Each crumb counts with its name and 32 bytes, as the limit is defined; those that fit arrive as one line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crumb_of_a_cookie_counts() {
    let ground = Ground::new().await;
    for (crumbs, status) in [(1_000, 200), (2_000, 431)] {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let kept = [get("cart", "/"), line_kept("cookie", "a=b"), vec![LAST_LINE; crumbs - 1]].concat();
        client.write_all(&[opening(&[]), frame(HEADERS, WHOLE, 1, &kept)].concat()).await.unwrap();
        let (mut frames, mut buffer) = (Frames::default(), vec![0; 16 * 1024]);
        let block = loop {
            let read = client.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{crumbs} crumbs");
            if let Some(answer) = frames.feed(&buffer[..read]).into_iter().find(|f| f.0 == HEADERS) {
                break answer.3;
            }
        };
        // 200 has a place of its own in the static table.
        let got = if block[0] == 0x88 { 200 } else { 431 };
        assert_eq!(got, status, "{crumbs} crumbs: {block:?}");
    }
    let seen = ground.cart.seen().pop().unwrap();
    assert_eq!(seen.header("cookie").map(str::len), Some(1_000 * 5 - 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_flood() {
    is_cut(&[Cut::Settings], opening(&[]), many(&frame(SETTINGS, 0, 0, &[]))).await;
}

/// Each changes the window of every stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_flood_with_open_streams() {
    let requests = (0..100).flat_map(|n| frame(HEADERS, WHOLE, stream(n), &get("cart", "/")));
    let begun = [opening(&[]), requests.collect()].concat();
    let change = |value: u32| [&4_u16.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload = [change(0), change(65_535)].concat().repeat(100);
    is_cut(&[Cut::Settings], begun, many(&frame(SETTINGS, 0, 0, &payload))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_flood() {
    is_cut(&[Cut::Ping], opening(&[]), many(&frame(PING, 0, 0, &[0; 8]))).await;
}

/// It never reads what it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_flood_that_does_not_read() {
    let ground = Ground::new().await;
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let _cut = client.write_all(&opening(&[])).await;
        while client.write_all(&frame(PING, 0, 0, &[0; 8]).repeat(1_000)).await.is_ok() {}
    };
    ground.during(attack).await;
    assert_eq!(ground.cuts(Cut::Ping), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priority_flood() {
    is_cut(&[Cut::Priority], opening(&[]), many(&frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_update_flood() {
    is_cut(&[Cut::WindowUpdate], opening(&[]), many(&frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_flood() {
    let begun = [opening(&[]), frame(HEADERS, END_HEADERS, 1, &post("cart", "/"))].concat();
    is_cut(&[Cut::EmptyData, Cut::Calm], begun, many(&frame(DATA, 0, 1, &[]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_frames_flood() {
    is_cut(&[Cut::UnknownFrame], opening(&[]), many(&frame(0xee, 0, 0, &[]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_unknown_frames_flood() {
    is_cut(&[Cut::UnknownFrame], opening(&[]), many(&frame(0xee, 0, 0, &[0; 16_384]))).await;
}

/// A hundred answers of 10 MiB, of which nobody takes a byte: each is given up, and the upstream is let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_window_with_many_large_answers() {
    let ground = Ground::new().await.answers(640);
    let attack = async {
        let (mut read, mut write) = TcpStream::connect(ground.at()).await.unwrap().into_split();
        let requests = (0..100).flat_map(|n| frame(HEADERS, WHOLE, stream(n), &get("cart", "/")));
        let all = [opening(&[(4, 0)]), requests.collect()].concat();
        write.write_all(&all).await.unwrap();
        let gave_up = async {
            let given_up = &ground.sidecar.live.counters.stalled_streams;
            let all = || async { given_up.load(std::sync::atomic::Ordering::Relaxed) == 100 };
            eventually("all were given up", all).await;
            drop(write);
        };
        tokio::join!(told(&mut read), gave_up).0
    };
    let told = ground.during(attack).await;
    assert_eq!(told.resets, 100, "{told:?}");
    eventually("the upstream is let go", || async { ground.cart.in_flight() == 0 }).await;
}

/// A window of one byte: a byte of each answer goes, and then nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_one_byte_with_many_small_answers() {
    let ground = Ground::new().await;
    ground.cart.behave(Behaviour { body: BodyOf::Bytes(2_000), ..Behaviour::default() });
    let attack = async {
        let mut client = TcpStream::connect(ground.at()).await.unwrap();
        let requests = (0..100).flat_map(|n| frame(HEADERS, WHOLE, stream(n), &get("cart", "/")));
        let all = [opening(&[(4, 1)]), requests.collect()].concat();
        client.write_all(&all).await.unwrap();
        told(&mut client).await
    };
    ground.during(attack).await;
    assert_eq!(ground.cuts(Cut::SlowReader), 1, "no stream of it is left to hyper: the connection goes");
}
