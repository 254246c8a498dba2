//! `bench serve`: a load on a running server, and how it answers.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output;

/// More connections than one machine should open for this.
const MOST_CONCURRENCY: usize = 512;
/// Requests of one load, at most.
const MOST_REQUESTS: usize = 1_000_000;
/// Ids that every vocabulary has.
const IDS: u64 = 256;

/// Arguments of `bench serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Models to ask, separated by commas [default: all adapters, or the base if there are none].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    models: Vec<String>,
    /// Number of requests of each load.
    #[arg(long, value_name = "N", default_value_t = 64)]
    requests: usize,
    /// Number of requests at the same time.
    #[arg(long, value_name = "N", default_value_t = 32)]
    concurrency: usize,
    /// Number of tokens per prompt; they are random, so that none is in the server's cache.
    #[arg(long, value_name = "N", default_value_t = 32)]
    prompt_tokens: usize,
    /// Number of new tokens per request.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// File with the server's key, on its first line.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Print one JSON object per load to stdout.
    #[arg(long)]
    json: bool,
}

/// A load, measured.
#[derive(Debug, Serialize)]
struct Report {
    models: usize,
    requests: usize,
    concurrency: usize,
    prompt_tokens: usize,
    max_tokens: usize,
    seconds: f64,
    requests_per_s: f64,
    tokens_per_s: f64,
    first_token_p50_s: f64,
    first_token_p90_s: f64,
    /// Between two tokens of an answer.
    between_p50_s: f64,
    between_p90_s: f64,
}

/// One answer: seconds to its first token, and between its tokens.
struct Answer {
    first: f64,
    between: Vec<f64>,
}

/// Where requests go.
struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    let key = match &args.api_key_file {
        None => None,
        Some(path) => {
            let text = burn_peft_files::read_to_string(path)?;
            let mut lines = text.lines().map(str::trim);
            let key = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
            Some(
                key.with_context(|| format!("{}: there is no key in it", path.display()))?
                    .to_owned(),
            )
        }
    };
    let agent = ureq::AgentBuilder::new()
        .timeout_connect(Duration::from_secs(10))
        .max_idle_connections_per_host(MOST_CONCURRENCY)
        .build();
    let client = Client {
        agent,
        url: args.url.trim_end_matches('/').to_owned(),
        key,
    };
    let models = match args.models.is_empty() {
        true => client.models()?,
        false => args.models.clone(),
    };
    // With one of them, with twice as many, and so on up to all.
    let mut count = 1;
    loop {
        let report = args.load(&client, &models[..count])?;
        match args.json {
            true => output::print_json(&report)?,
            false => output::print(&report.line())?,
        }
        if count == models.len() {
            return Ok(());
        }
        count = (2 * count).min(models.len());
    }
}

impl Args {
    fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("--requests", self.requests, MOST_REQUESTS),
            ("--concurrency", self.concurrency, MOST_CONCURRENCY),
            ("--prompt-tokens", self.prompt_tokens, MOST_REQUESTS),
            ("--max-tokens", self.max_tokens, MOST_REQUESTS),
        ] {
            if !(1..=most).contains(&value) {
                bail!("{name} is {value}, expected 1 to {most}");
            }
        }
        Ok(())
    }

    fn load(&self, client: &Client, models: &[String]) -> Result<Report> {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        let work = || {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.requests {
                    return Ok(answers);
                }
                let prompt = prompt(index, self.prompt_tokens);
                let model = &models[index % models.len()];
                let asked = client.ask(model, &prompt, self.max_tokens);
                // The others stop soon, too.
                answers.push(asked.inspect_err(|_| next.store(self.requests, Ordering::Relaxed))?);
            }
        };
        let answers: Result<Vec<Vec<Answer>>> = thread::scope(|scope| {
            let threads = self.concurrency.min(self.requests);
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter();
            joined
                .map(|thread| thread.join().expect("a panic ends the process"))
                .collect()
        });
        let answers: Vec<Answer> = answers?.into_iter().flatten().collect();
        let seconds = began.elapsed().as_secs_f64();
        let first = sorted(answers.iter().map(|answer| answer.first));
        let between = sorted(
            answers
                .iter()
                .flat_map(|answer| answer.between.iter().copied()),
        );
        Ok(Report {
            models: models.len(),
            requests: answers.len(),
            concurrency: self.concurrency,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            seconds,
            requests_per_s: answers.len() as f64 / seconds,
            tokens_per_s: (answers.len() * self.max_tokens) as f64 / seconds,
            first_token_p50_s: quantile(&first, 0.5),
            first_token_p90_s: quantile(&first, 0.9),
            between_p50_s: quantile(&between, 0.5),
            between_p90_s: quantile(&between, 0.9),
        })
    }
}

impl Client {
    fn request(&self, method: &str, path: &str) -> ureq::Request {
        let request = self.agent.request(method, &format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.set("Authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    /// The adapters of the server, or the base where it has none.
    fn models(&self) -> Result<Vec<String>> {
        let list = said(self.request("GET", "/v1/models").call())?.into_json::<Value>();
        let list = list.with_context(|| format!("{}: no list of models", self.url))?;
        let data = list["data"].as_array().into_iter().flatten();
        let ids: Vec<String> = data
            .filter_map(|model| Some(model["id"].as_str()?.to_owned()))
            .collect();
        let adapters: Vec<String> = ids.iter().filter(|id| *id != "base").cloned().collect();
        match (adapters.is_empty(), ids.is_empty()) {
            (_, true) => bail!("{}: it serves no model", self.url),
            (true, _) => Ok(ids),
            (false, _) => Ok(adapters),
        }
    }

    /// Asks for a stream, and times its events.
    fn ask(&self, model: &str, prompt: &[u64], max_tokens: usize) -> Result<Answer> {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0,
            "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}});
        let began = Instant::now();
        let response = said(self.request("POST", "/v1/completions").send_json(body))?;
        let (mut times, mut tokens) = (Vec::new(), 0);
        for line in BufReader::new(response.into_reader()).lines() {
            let line = line.with_context(|| format!("{}: the stream broke off", self.url))?;
            let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
                continue;
            };
            let event: Value = serde_json::from_str(data).context("an event is not JSON")?;
            if let Some(message) = event["error"]["message"].as_str() {
                bail!("{}: {message}", self.url);
            }
            match event["usage"]["completion_tokens"].as_u64() {
                Some(count) => tokens = count as usize,
                None => times.push(began.elapsed().as_secs_f64()),
            }
        }
        if tokens != max_tokens {
            bail!(
                "{}: {tokens} tokens came, {max_tokens} were asked for",
                self.url
            );
        }
        let first = *times.first().context("no token came")?;
        Ok(Answer {
            first,
            between: times.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        })
    }
}

/// A response that succeeded, or what the server says is wrong.
fn said(answer: Result<ureq::Response, ureq::Error>) -> Result<ureq::Response> {
    answer.map_err(|error| match error {
        ureq::Error::Status(status, response) => {
            let url = response.get_url().to_owned();
            let body: Value = response.into_json().unwrap_or_default();
            let message = body["error"]["message"].as_str().unwrap_or("no reason");
            anyhow!("{url}: status {status}: {message}")
        }
        error => anyhow!("{error}"),
    })
}

/// Token ids that no other request has.
fn prompt(index: usize, tokens: usize) -> Vec<u64> {
    // Knuth's multiplicative generator (MMIX).
    let mut state = index as u64 + 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % IDS
    };
    (0..tokens).map(next).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The smallest value that so large a part of them does not exceed; 0 of none.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

impl Report {
    fn line(&self) -> String {
        let milliseconds = |seconds: f64| format!("{:.0} ms", 1000.0 * seconds);
        format!(
            "{} models, {} at a time: {:.2} requests/s, {:.1} tokens/s; first token after {} (p90 {}), then every {} (p90 {})\n",
            self.models,
            self.concurrency,
            self.requests_per_s,
            self.tokens_per_s,
            milliseconds(self.first_token_p50_s),
            milliseconds(self.first_token_p90_s),
            milliseconds(self.between_p50_s),
            milliseconds(self.between_p90_s),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = sorted([3.0, 1.0, 2.0, 4.0].into_iter());
        assert_eq!(
            [0.0, 0.5, 0.9, 1.0].map(|part| quantile(&values, part)),
            [1.0, 2.0, 4.0, 4.0]
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn prompts_differ_from_their_first_token_on_in_most_places() {
        let prompts: Vec<_> = (0..20).map(|index| prompt(index, 32)).collect();
        for (index, one) in prompts.iter().enumerate() {
            assert!(one.iter().all(|id| *id < IDS));
            for other in &prompts[..index] {
                let same = one.iter().zip(other).filter(|(a, b)| a == b).count();
                assert!(same < 8, "{same} of 32");
            }
        }
    }
}
