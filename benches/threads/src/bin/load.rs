//! What loads the relay, and what stands behind it, in one program on one thread.
//!
//!     load serve LISTEN                                        answers 200 with a few bytes, HTTP/1.1 and 2
//!     load call ADDRESS h1|h2 CONNECTIONS STREAMS SECONDS RATE a line of JSON; RATE 0 is as fast as it goes

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

type Fault = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = args.iter().map(String::as_str).collect();
    match text[..] {
        ["serve", at] => LocalSet::new().run_until(serve(at.parse()?)).await,
        ["call", at, protocol, connections, streams, seconds, rate] => {
            let load = Load {
                at: at.parse()?,
                http2: protocol == "h2",
                connections: connections.parse()?,
                streams: streams.parse()?,
                time: Duration::from_secs_f64(seconds.parse()?),
                rate: rate.parse()?,
            };
            LocalSet::new().run_until(load.run()).await
        }
        _ => Err("see the first lines of load.rs".into()),
    }
}

#[derive(Clone)]
struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn serve(at: SocketAddr) -> Result<(), Fault> {
    let listener = TcpListener::bind(at).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            let mut head = [0; 3];
            let http2 = stream.peek(&mut head).await.is_ok() && head == *b"PRI";
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"a small answer\n"))))
            });
            let io = TokioIo::new(stream);
            let _left = if http2 {
                let mut builder = hyper::server::conn::http2::Builder::new(LocalExec);
                builder.max_concurrent_streams(1000).serve_connection(io, answer).await
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await
            };
        });
    }
}

struct Load {
    at: SocketAddr,
    http2: bool,
    connections: usize,
    streams: usize,
    time: Duration,
    rate: f64,
}

impl Load {
    async fn run(self) -> Result<(), Fault> {
        let taken: Rc<RefCell<Vec<u32>>> = Rc::default();
        let callers = self.connections * self.streams;
        let (began, end) = (Instant::now(), Instant::now() + self.time);
        let mut tasks = Vec::new();
        for connection in 0..self.connections {
            let stream = TcpStream::connect(self.at).await?;
            stream.set_nodelay(true)?;
            let io = TokioIo::new(stream);
            if self.http2 {
                let (sender, driver) = http2::handshake(LocalExec, io).await?;
                tokio::task::spawn_local(driver);
                for stream in 0..self.streams {
                    let pace = self.pace(began, connection * self.streams + stream, callers);
                    tasks.push(tokio::task::spawn_local(many2(sender.clone(), pace, end, Rc::clone(&taken))));
                }
            } else {
                let (sender, driver) = http1::handshake(io).await?;
                tokio::task::spawn_local(driver);
                let pace = self.pace(began, connection, callers);
                tasks.push(tokio::task::spawn_local(many1(sender, pace, end, Rc::clone(&taken))));
            }
        }
        for task in tasks {
            task.await??;
        }
        let mut taken = taken.take();
        taken.sort_unstable();
        let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
        let (n, seconds) = (taken.len(), began.elapsed().as_secs_f64());
        println!(
            "{{\"requests\": {n}, \"seconds\": {seconds:.3}, \"p50_us\": {}, \"p99_us\": {}}}",
            at(0.5),
            at(0.99)
        );
        Ok(())
    }

    /// Calls at fixed times, each caller its own, so that a slow answer does not slow down the load.
    fn pace(&self, began: Instant, caller: usize, callers: usize) -> Option<(Instant, Duration)> {
        let every = (self.rate > 0.0).then(|| Duration::from_secs_f64(callers as f64 / self.rate))?;
        Some((began + every.mul_f64(caller as f64 / callers as f64), every))
    }
}

type Pace = Option<(Instant, Duration)>;
type Taken = Rc<RefCell<Vec<u32>>>;

async fn many1(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    mut pace: Pace,
    end: Instant,
    taken: Taken,
) -> Result<(), String> {
    while let Some(from) = next(&mut pace, end).await {
        let request = Request::get("/")
            .header("host", "server.default")
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        sender.ready().await.map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        answer.into_body().collect().await.map_err(|e| e.to_string())?;
        taken.borrow_mut().push(from.elapsed().as_micros() as u32);
    }
    Ok(())
}

async fn many2(
    mut sender: http2::SendRequest<Empty<Bytes>>,
    mut pace: Pace,
    end: Instant,
    taken: Taken,
) -> Result<(), String> {
    while let Some(from) = next(&mut pace, end).await {
        let request = Request::get("http://server.default/").body(Empty::new()).map_err(|e| e.to_string())?;
        sender.ready().await.map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        answer.into_body().collect().await.map_err(|e| e.to_string())?;
        taken.borrow_mut().push(from.elapsed().as_micros() as u32);
    }
    Ok(())
}

/// When the next request goes; `None` at the end.
async fn next(pace: &mut Pace, end: Instant) -> Option<Instant> {
    if let Some((at, every)) = pace {
        tokio::time::sleep_until((*at).into()).await;
        *at += *every;
    }
    // Counted from here: the timer itself is as coarse as a millisecond.
    let now = Instant::now();
    (now < end).then_some(now)
}
