//! Everything that speaks to clients. It sees the service, what the service hands out, and the vocabulary.
//!
//! ```text
//! connection (one task each, hyper)
//!  └─ door (access) → Socket.IO layer → warp routes
//!      └─ upgraded sockets: one conversation each
//! ```

mod access;
mod api;
mod body;
mod conversation;
mod problem;
mod socket;
mod socketio;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Layer as _, ServiceExt as _};

use crate::config::Config;
use crate::service::Service;
use access::{Access, Entry};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// How long a client may take to send the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);

/// How long answers may take to be delivered after the last execution had to end.
const CLOSING: Duration = Duration::from_secs(5);

/// After a failed accept, which is nearly always one for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets requests that are being answered finish.
pub async fn serve(listener: TcpListener, service: Arc<Service>, config: &Config, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let access = Arc::new(Access {
        cors_origin: config.cors_origin.clone(),
        loopback: config.host.is_loopback(),
        trust_proxy: config.trust_proxy,
    });
    let context = socketio::Context {
        service: Arc::clone(&service),
        tasks: tasks.clone(),
        stop: stop.clone(),
        max_payload: config.body_limit,
    };
    let (socketio, io) = socketio::layer(context);
    let api = api::Api { service, bodies: body::Bodies::new(config.body_limit), stop: stop.clone() };
    let routes = socketio.layer(warp::service(api::routes(api)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let door = Door { inner: routes.clone(), access: Arc::clone(&access), peer };
                connections.spawn(connection(stream, door, stop.clone()));
            }
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    connections.close();
    tasks.close();
    let ended = async {
        tasks.wait().await;
        io.close().await;
        connections.wait().await;
    };
    if tokio::time::timeout(CLOSING, ended).await.is_err() {
        log::info!("{} connection(s) are cut", connections.len());
    }
}

/// Serves one connection: HTTP/1.1 with upgrades, which is all that WebSockets need.
async fn connection<S, B>(stream: TcpStream, door: Door<S>, stop: CancellationToken)
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Small answers must not wait for the peer's delayed ACK. A socket that cannot be told so still serves.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let service = service_fn(move |request| door.clone().answer(request));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        log::trace!("a connection ended: {error}");
    }
}

/// The door in front of all services of one connection.
#[derive(Clone)]
struct Door<S> {
    inner: S,
    access: Arc<Access>,
    peer: SocketAddr,
}

impl<S, B> Door<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
        let Door { inner, access, peer } = self;
        match access.check(&request) {
            Entry::Answered(response) => {
                Ok(response.map(|text| Full::from(text).map_err(Into::into).boxed_unsync()))
            }
            Entry::Welcome(origin) => {
                let client = access.client(peer.ip(), request.headers());
                request.extensions_mut().insert(client);
                // HEAD is GET without the body, which hyper leaves out. A poll is no page to look at.
                if *request.method() == Method::HEAD && !request.uri().path().starts_with("/socket.io") {
                    *request.method_mut() = Method::GET;
                }
                let mut response = inner.oneshot(request).await?;
                Access::seal(origin, &mut response);
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        }
    }
}
