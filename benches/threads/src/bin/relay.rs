//! A bare relay in two forms, alike in everything but the threads.
//!
//!     relay local|stealing WORKERS LISTEN UPSTREAM h1|h2
//!
//! `local`: a single-threaded runtime a worker, a listener and upstream connections of its own (SO_REUSEPORT, Rc).
//! `stealing`: one multi-threaded runtime, one listener, upstream connections shared (Arc, Mutex).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Send1 = client1::SendRequest<Incoming>;
type Send2 = client2::SendRequest<Incoming>;

fn main() -> Result<(), Fault> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [form, workers, listen, upstream, protocol] = &args[..] else {
        return Err("relay local|stealing WORKERS LISTEN UPSTREAM h1|h2".into());
    };
    let (workers, listen, upstream) = (workers.parse()?, listen.parse()?, upstream.parse()?);
    let http2 = protocol == "h2";
    match form.as_str() {
        "local" => per_core(workers, listen, upstream, http2),
        _ => stealing(workers, listen, upstream, http2),
    }
}

fn listener(at: SocketAddr) -> Result<std::net::TcpListener, Fault> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// What both forms do to a head: the same as the floor of benches/peers.
fn towards_upstream(request: &mut Request<Incoming>, http2: bool) {
    request.headers_mut().remove(http::header::CONNECTION);
    *request.version_mut() = if http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
}

fn towards_client(answer: &mut Response<Incoming>, version: http::Version) {
    answer.headers_mut().remove(http::header::CONNECTION);
    *answer.version_mut() = version;
}

// ---- a runtime a core

fn per_core(workers: usize, listen: SocketAddr, upstream: SocketAddr, http2: bool) -> Result<(), Fault> {
    let listeners = (0..workers).map(|_| listener(listen)).collect::<Result<Vec<_>, _>>()?;
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            std::thread::spawn(move || {
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
                runtime.block_on(worker(listener, upstream, http2))
            })
        })
        .collect();
    threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a worker panicked")?)
}

async fn worker(listener: std::net::TcpListener, upstream: SocketAddr, http2: bool) -> Result<(), Fault> {
    let listener = TcpListener::from_std(listener)?;
    let out = Rc::new(Local { upstream, http2, h1: Default::default(), h2: Default::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let out = Rc::clone(&out);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (out, version) = (Rc::clone(&out), request.version());
                async move {
                    towards_upstream(&mut request, out.http2);
                    let mut answer = out.send(request).await?;
                    towards_client(&mut answer, version);
                    Ok::<_, Fault>(answer)
                }
            });
            let io = TokioIo::new(stream);
            let _left = if http2 {
                http2::Builder::new(LocalExec)
                    .max_concurrent_streams(1000)
                    .serve_connection(io, service)
                    .await
            } else {
                http1::Builder::new().serve_connection(io, service).await
            };
        });
    }
}

#[derive(Clone)]
struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

struct Local {
    upstream: SocketAddr,
    http2: bool,
    h1: std::cell::RefCell<Vec<Send1>>,
    h2: tokio::sync::Mutex<Option<Send2>>,
}

impl Local {
    async fn send(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Fault> {
        if self.http2 {
            let mut sender = {
                let mut kept = self.h2.lock().await;
                if kept.as_ref().is_none_or(Send2::is_closed) {
                    let io = dial(self.upstream).await?;
                    let (sender, connection) = client2::handshake(LocalExec, io).await?;
                    tokio::task::spawn_local(connection);
                    *kept = Some(sender);
                }
                kept.clone().ok_or("no connection")?
            };
            sender.ready().await?;
            return Ok(sender.send_request(request).await?);
        }
        let kept = self.h1.borrow_mut().pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let (sender, connection) = client1::handshake(dial(self.upstream).await?).await?;
                tokio::task::spawn_local(connection);
                sender
            }
        };
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        self.h1.borrow_mut().push(sender);
        Ok(answer)
    }
}

// ---- one runtime that steals

fn stealing(workers: usize, listen: SocketAddr, upstream: SocketAddr, http2: bool) -> Result<(), Fault> {
    let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async move {
        // Spawned, so that the loop runs on a worker and not on the thread that waits.
        tokio::spawn(accept(listener(listen)?, upstream, http2)).await?
    })
}

async fn accept(listener: std::net::TcpListener, upstream: SocketAddr, http2: bool) -> Result<(), Fault> {
    let listener = TcpListener::from_std(listener)?;
    let out = Arc::new(Shared { upstream, http2, h1: Mutex::default(), h2: Default::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let out = Arc::clone(&out);
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (out, version) = (Arc::clone(&out), request.version());
                async move {
                    towards_upstream(&mut request, out.http2);
                    let mut answer = out.send(request).await?;
                    towards_client(&mut answer, version);
                    Ok::<_, Fault>(answer)
                }
            });
            let io = TokioIo::new(stream);
            let _left = if http2 {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(1000).serve_connection(io, service).await
            } else {
                http1::Builder::new().serve_connection(io, service).await
            };
        });
    }
}

struct Shared {
    upstream: SocketAddr,
    http2: bool,
    h1: Mutex<Vec<Send1>>,
    h2: tokio::sync::Mutex<Vec<Send2>>,
}

impl Shared {
    async fn send(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Fault> {
        if self.http2 {
            let mut sender = {
                let mut kept = self.h2.lock().await;
                kept.retain(|s| !s.is_closed());
                if kept.is_empty() {
                    let io = dial(self.upstream).await?;
                    let (sender, connection) = client2::handshake(TokioExecutor::new(), io).await?;
                    tokio::spawn(connection);
                    kept.push(sender);
                }
                kept.first().cloned().ok_or("no connection")?
            };
            sender.ready().await?;
            return Ok(sender.send_request(request).await?);
        }
        let kept = self.h1.lock().unwrap().pop();
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let (sender, connection) = client1::handshake(dial(self.upstream).await?).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        self.h1.lock().unwrap().push(sender);
        Ok(answer)
    }
}

async fn dial(upstream: SocketAddr) -> Result<TokioIo<TcpStream>, Fault> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}
