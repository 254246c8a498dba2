//! Connections: how many, and how long they may be slow.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};
use tokio_io_timeout::TimeoutStream;

/// Connections at the same time. More of them wait to be accepted.
const MOST_CONNECTIONS: u32 = 512;

/// How long the header of a request may take, and with it how long a connection may be idle.
const HEADER_PATIENCE: Duration = Duration::from_secs(15);

/// How long a client may take nothing of what it is sent.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// The longest header of a request, in bytes.
const LONGEST_HEADER: usize = 64 << 10;

/// How long responses may take to arrive once the server is done.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted: most likely no file is left for it.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `done` is, and then what is under way on them.
pub(crate) async fn accept(listener: TcpListener, router: Router, done: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS as usize));
    let (close, closing) = watch::channel(false);
    let mut done = pin!(done);
    let accept = async || {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes it");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (place, stream),
                Err(_) => time::sleep(PAUSE).await,
            }
        }
    };
    loop {
        tokio::select! {
            (place, stream) = accept() => {
                tokio::spawn(serve(stream, router.clone(), closing.clone(), place));
            }
            () = &mut done => break,
        }
    }
    let _ = close.send(true);
    // Who does not take an answer is left.
    let _ = time::timeout(LAST_PATIENCE, places.acquire_many(MOST_CONNECTIONS)).await;
}

/// Answers the requests of a connection. Where the client hangs up, the answer under way is dropped, and with it its
/// rows.
async fn serve(
    stream: TcpStream,
    router: Router,
    mut closing: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    // Tokens are sent one by one.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_PATIENCE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(LONGEST_HEADER)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        );
    let mut connection = pin!(connection);
    // What fails here is the client's doing, and nobody is left to tell.
    let is_closing = tokio::select! {
        _ = &mut connection => false,
        _ = closing.wait_for(|closing| *closing) => true,
    };
    if is_closing {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
    drop(place);
}
