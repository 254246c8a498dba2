//! One engine behind one address.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime,
    sync::{Mutex, MutexGuard, watch},
    time,
};

use crate::{
    api::ApiError,
    engine::Engine,
    http::{Hosts, Metrics, accept, router},
    keys::Keys,
    models::{AdapterTexts, BaseModel, Models},
};

/// Threads that turn texts to ids and look at folders.
const TEXT_THREADS: usize = 4;

/// How often a server that stops looks whether it is done.
const LOOK: Duration = Duration::from_millis(10);

/// Looks at an adapter's folder, for one that is added while the server runs.
pub type Inspect = Box<dyn Fn(&Path) -> Result<AdapterTexts, String> + Send + Sync>;

/// Whom a server lets in, and what it takes on.
pub struct ServerOptions {
    /// The host that it was told to listen on.
    pub host: String,
    /// The keys that requests need; `None` lets all in.
    pub api_keys: Option<Keys>,
    /// The keys with which adapters are added and removed; `None` lets nobody.
    pub admin_keys: Option<Keys>,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// Looks at folders of adapters that are added.
    pub inspect: Inspect,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Asks a server to stop.
#[derive(Debug, Clone)]
pub struct StopServer(watch::Sender<bool>);

impl Default for StopServer {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl StopServer {
    /// Has the server finish what runs, and refuse what comes. False where it was asked before.
    pub fn request(&self) -> bool {
        !self.0.send_replace(true)
    }
}

/// What all requests share.
pub(crate) struct Server {
    engine: Engine,
    models: Models,
    options: ServerOptions,
    hosts: Hosts,
    stop: watch::Receiver<bool>,
    metrics: Metrics,
    /// Requests that are answered.
    busy: AtomicUsize,
    loading: Mutex<()>,
    started: u64,
}

/// A request that is answered. The server waits for it when it stops.
pub(crate) struct Busy(Arc<Server>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(crate) fn api_keys(&self) -> &Option<Keys> {
        &self.options.api_keys
    }

    pub(crate) fn admin_keys(&self) -> &Option<Keys> {
        &self.options.admin_keys
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.options.request_timeout
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// When it started, in seconds since 1970.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Takes a request on, unless the server stops.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Busy, ApiError> {
        self.busy.fetch_add(1, Ordering::AcqRel);
        let busy = Busy(Arc::clone(self));
        match self.is_stopping() {
            false => Ok(busy),
            true => Err(ApiError::stopping()),
        }
    }

    /// Waits until nobody else loads an adapter.
    pub(crate) async fn loading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().await
    }

    pub(crate) fn inspect(&self, dir: &Path) -> Result<AdapterTexts, String> {
        (self.options.inspect)(dir)
    }

    /// Ends when the server was stopped and all requests are answered.
    ///
    /// # Panics
    /// If the engine ended by itself, which it does when it panics.
    async fn done(&self) {
        let mut stop = self.stop.clone();
        let mut engine = time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = engine.tick() => {
                    assert!(self.engine.is_running(), "the thread that computes has ended");
                }
            }
        }
        while self.busy.load(Ordering::Acquire) > 0 {
            time::sleep(LOOK).await;
        }
    }
}

/// Serves `engine` on `listener` until `stop` is requested and what ran by then is answered. `adapters` are those that
/// the engine was started with, in that order; `ready` is called with the address once requests are answered.
///
/// # Errors
/// The address cannot be listened on, or `ready` fails.
///
/// # Panics
/// If the engine's thread panicked.
pub fn serve(
    listener: TcpListener,
    engine: Engine,
    (base, adapters): (BaseModel, Vec<(String, AdapterTexts)>),
    options: ServerOptions,
    stop: &StopServer,
    ready: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let max_context = engine.limits().max_context;
    let server = Arc::new(Server {
        models: Models::new(base, max_context, adapters),
        engine,
        hosts: match address.ip().is_loopback() {
            true => Hosts::ThisMachine(options.host.clone()),
            false => Hosts::All,
        },
        options,
        stop: stop.0.subscribe(),
        metrics: Metrics::default(),
        busy: AtomicUsize::new(0),
        loading: Mutex::new(()),
        started: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    });
    // One thread is enough for what is left beside the engine: it has all cores.
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(TEXT_THREADS)
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        ready(address)?;
        accept(listener, router(Arc::clone(&server)), server.done()).await;
        Ok(())
    })
}
