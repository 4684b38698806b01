//! What the guard below HTTP/1 costs: a small head, and a body in chunks beside the same bytes read without it.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outrigger_proxy::http::strict::{HeadReader, Limits, Progress, Request, RequestGuard, Turns};
use tokio::io::{AsyncRead, ReadBuf};

const SMALL: &[u8] = b"GET /items/7/reviews?page=2 HTTP/1.1\r\nHost: cart.shop.mesh\r\nUser-Agent: curl/8.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, br\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("guard");
    group.throughput(Throughput::Bytes(SMALL.len() as u64));
    let mut reader = HeadReader::<Request>::new(&Limits::EDGE);
    group.bench_function("small head", |b| {
        b.iter(|| assert!(matches!(reader.advance(black_box(SMALL)), Ok(Progress::Whole(_)))));
    });
    group.finish();
}

fn body(c: &mut Criterion) {
    let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
    let message = [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        &chunk.repeat(64)[..],
        b"0\r\n\r\n",
    ]
    .concat();
    let mut group = c.benchmark_group("1 MiB in chunks");
    group.throughput(Throughput::Bytes(message.len() as u64));
    group.bench_function("read", |b| b.iter(|| drain(Memory(&message))));
    group.bench_function("read through the guard", |b| {
        b.iter(|| drain(RequestGuard::new(Memory(&message), Rc::new(Turns::default()), &Limits::EDGE)));
    });
    group.finish();
}

/// Reads to the end as hyper does, 64 KiB at a time.
fn drain(mut from: impl AsyncRead + Unpin) {
    thread_local! {
        static SPACE: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 64 * 1024]);
    }
    SPACE.with_borrow_mut(|space| {
        loop {
            let mut buf = ReadBuf::new(space);
            let polled = Pin::new(&mut from).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
            assert!(matches!(polled, Poll::Ready(Ok(()))));
            if black_box(buf.filled()).is_empty() {
                return;
            }
        }
    });
}

struct Memory<'a>(&'a [u8]);

impl AsyncRead for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(to.remaining()));
        to.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

criterion_group!(benches, head, body);
criterion_main!(benches);
