//! An upstream over HTTP/2 that answers, and answers, and never comes to its answer.

use std::net::SocketAddr;

use outrigger_mesh::{Port, PortNumber, Protocol, Service};
use outrigger_testkit::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::Ground;
use crate::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, LAST_LINE, PREFACE, SETTINGS, frame, line_kept,
};
use crate::support::{open_service, plain};

/// `:status` with a value of the sender's: 103, then 200.
const HINTS: &[u8] = b"\x08\x03103";
const OK: &[u8] = &[0x88];

/// An application over HTTP/2 that sends `count` interim answers before each answer, each of which is some 55 KiB once it
/// is decoded. Told are the connections that were closed over it.
async fn hinting(count: usize) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (cut, cuts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if hint(stream, count).await.is_err() && cut.send(()).is_err() {
                return;
            }
        }
    });
    (addr, cuts)
}

async fn hint(mut stream: TcpStream, count: usize) -> std::io::Result<()> {
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let (mut frames, mut buffer) = (Frames::default(), vec![0; 64 * 1024]);
    stream.read_exact(&mut buffer[..PREFACE.len()]).await?;
    let long = line_kept("x", &"y".repeat(3_000));
    let first = [HINTS, &long].concat();
    let other = [HINTS, &[LAST_LINE; 18][..]].concat();
    while let read @ 1.. = stream.read(&mut buffer).await? {
        for (_, _, id, _) in frames.feed(&buffer[..read]).into_iter().filter(|f| f.0 == HEADERS) {
            for n in 0..count {
                let block = if n == 0 { &first } else { &other };
                stream.write_all(&frame(HEADERS, END_HEADERS, id, block)).await?;
            }
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, OK)).await?;
        }
    }
    Ok(())
}

async fn ground(app: SocketAddr) -> Ground {
    let ground = Ground::new().await;
    let ports = vec![Port { number: PortNumber::HTTP, protocol: Protocol::Http2 }];
    let service = Service { ports, ..open_service("shop/hints") };
    ground.sidecar.knows(service, [plain("shop/hints", "i-1", app)]);
    ground
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_an_end_over_http2() {
    let (app, mut cuts) = hinting(3_000_000).await;
    let ground = ground(app).await;
    let asked = async { Client::h1(ground.at()).await.get("hints", "/").await.unwrap() };
    let reply = ground.during(asked).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-outrigger-reason")), (502, Some("upstream_reset")));
    assert!(cuts.recv().await.is_some(), "its connection is closed long before the last of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_interim_answers_over_http2_are_borne_as_over_http1() {
    let (app, _cuts) = hinting(8).await;
    let ground = ground(app).await;
    let mut caller = Client::h1(ground.at()).await;
    for _ in 0..50 {
        assert_eq!(caller.get("hints", "/").await.unwrap().status.as_u16(), 200);
    }
}
