//! `serve`: a model and its adapters over HTTP.

mod adapters;

use std::{
    io,
    net::{IpAddr, TcpListener, ToSocketAddrs},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft_decoder::{DecoderConfig, GenerationOptions};
use burn_peft_ops::Ops;
use burn_peft_serve::{BaseModel, Engine, EngineLimits, Keys, ServerOptions, StopServer, serve};

use self::adapters::{NamedFolder, ServedBase};
use super::shared::{BaseArgs, ComputeArgs, OpenBase, display};
use crate::{backend::Job, output, signals, source};

/// Tokens of a row where nothing is said: what most conversations need, and no more memory than that.
const DEFAULT_CONTEXT: usize = 4096;

/// Tokens of prompts in a step. On a CPU a step with them takes about twice as long as one without.
const PREFILL_ON_CPU: usize = 64;
const PREFILL_ON_GPU: usize = 512;

/// Arguments of `serve`. Sampling options that a request does not give are OpenAI's, or those of the model's
/// generation_config.json where this has sampling on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    base: BaseArgs,
    /// An adapter folder, or a hub id (owner/name, owner/name@revision), and the name by which requests ask for it (several times).
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<NamedFolder>,
    /// Address to listen on. Beyond this machine, --api-key-file is needed.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Number of requests that are computed at the same time.
    #[arg(long, value_name = "N", default_value = "16")]
    max_batch: NonZeroUsize,
    /// Maximum tokens of a request, new ones included [default: the model's maximum, up to 4096].
    #[arg(long, value_name = "N")]
    max_context: Option<NonZeroUsize>,
    /// Number of requests that may wait; more are refused.
    #[arg(long, value_name = "N", default_value = "256")]
    max_queue: NonZeroUsize,
    /// Seconds that a request may take.
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    request_timeout: NonZeroUsize,
    /// File with the keys that requests need, one a line.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// File with the keys that let adapters be added and removed while the server runs, one a line.
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    adapters::check_names(&args.adapters)?;
    let api_keys = args.api_key_file.as_deref().map(keys).transpose()?;
    let admin_keys = args.admin_key_file.as_deref().map(keys).transpose()?;
    // Before the model is read: an address that is taken should not cost minutes.
    let listener = listen(&args.host, args.port)?;
    if api_keys.is_none() && !listener.local_addr()?.ip().is_loopback() {
        bail!(
            "--host {}: other machines could use the server; give it keys with --api-key-file",
            args.host
        );
    }
    let base = args.base.open()?;
    let limits = args.limits(base.checkpoint.config())?;
    let base = Arc::new(ServedBase::new(base, limits.max_context));
    let adapters = adapters::open(&base, &args.adapters)?;
    let backend = args.compute.backend;
    backend.run(Serve {
        listener,
        options: ServerOptions {
            host: args.host.clone(),
            api_keys,
            admin_keys,
            request_timeout: Duration::from_secs(args.request_timeout.get() as u64),
            inspect: base.inspector(),
        },
        base,
        adapters,
        limits,
        args,
    })
}

/// Reads a file of keys.
fn keys(path: &Path) -> Result<Keys> {
    let text = burn_peft_files::read_to_string(path)?;
    Keys::parse(&text).map_err(|error| anyhow!("{}: {error}", display(path)))
}

fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let cannot = || format!("--host {host} --port {port}: cannot be listened on");
    let name = host.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(address) => TcpListener::bind((address, port)).with_context(cannot),
        Err(_) => {
            let addresses: Vec<_> = (name, port)
                .to_socket_addrs()
                .with_context(cannot)?
                .collect();
            TcpListener::bind(&addresses[..]).with_context(cannot)
        }
    }
}

impl Args {
    fn limits(&self, config: &DecoderConfig) -> Result<EngineLimits> {
        let positions = config.max_position_embeddings;
        let max_context = match self.max_context {
            None => positions.min(DEFAULT_CONTEXT),
            Some(asked) if asked.get() > positions => {
                bail!("--max-context is {asked}, and the model has {positions} positions")
            }
            Some(asked) => asked.get(),
        };
        let is_cpu = self.compute.backend.memory().is_some();
        Ok(EngineLimits {
            max_batch: self.max_batch.get(),
            max_context,
            max_queue: self.max_queue.get(),
            prefill_tokens: match is_cpu {
                true => PREFILL_ON_CPU,
                false => PREFILL_ON_GPU,
            },
        })
    }
}

/// How texts go on where a request does not say: as OpenAI's go on, or as the checkpoint wants to be sampled.
fn default_options(base: &OpenBase) -> Result<GenerationOptions> {
    let config = base.checkpoint.generation_config();
    let mut options = GenerationOptions::from_config(config, 0)?;
    if !config.do_sample {
        options.temperature = 1.0;
    }
    for note in config.not_computed(true) {
        output::warn(note);
    }
    options.stop_ids = base.stop_ids();
    Ok(options)
}

struct Serve {
    args: Args,
    listener: TcpListener,
    base: Arc<ServedBase>,
    adapters: adapters::Opened,
    limits: EngineLimits,
    options: ServerOptions,
}

impl Job for Serve {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self {
            args,
            listener,
            base,
            adapters,
            limits,
            options,
        } = self;
        let dtype = args.compute.dtype(None).into();
        let open = base.open();
        let decoder = source::load::<B::InnerBackend>(&open.checkpoint, dtype, &device)?;
        let values = adapters.values::<B::InnerBackend>(decoder.config(), &device)?;
        let model = BaseModel {
            name: base.name(),
            tokenizer: open.tokenizer.clone(),
            options: default_options(open)?,
            vocab_size: open.checkpoint.config().vocab_size,
        };
        let load = Arc::clone(&base).loader::<B::InnerBackend>(device);
        let engine = Engine::start(decoder, values, load, limits)
            .context("the engine could not be started")?;
        let stop = StopServer::default();
        signals::stop_server(stop.clone())?;
        let names = adapters.into_texts();
        let ready = |address| {
            let line = format!("listening on http://{address}\n");
            output::print(&line).map_err(|error| io::Error::other(error.to_string()))
        };
        serve(listener, engine, (model, names), options, &stop, ready)
            .context("the server has ended")
    }
}
