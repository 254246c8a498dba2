//! Figures in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use crate::engine::Counters;

/// Upper bounds of the buckets of durations, in seconds.
const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
];

/// What the HTTP side counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Responses by path and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    first_token: Mutex<Histogram>,
    response: Mutex<Histogram>,
}

#[derive(Debug, Default)]
struct Histogram {
    /// How many were within each bound, and not within the one before.
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn note(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn write(&self, name: &str, help: &str, text: &mut String) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut within = 0;
        for (bound, count) in BOUNDS.iter().zip(self.counts) {
            within += count;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {within}");
        }
        let Self { count, sum, .. } = self;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }
}

impl Metrics {
    /// A response to a request at `path`. Of a stream, `took` is the time until it begins.
    pub(super) fn request(&self, path: &'static str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, status)).or_default() += 1;
        note(&self.response, took);
    }

    /// The first token of a response, so long behind the request.
    pub(crate) fn first_token(&self, after: Duration) {
        note(&self.first_token, after);
    }

    /// All figures.
    pub(super) fn text(&self, engine: &Counters) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# HELP burn_peft_requests_total Responses by path and status.\n# TYPE burn_peft_requests_total counter"
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((path, status), count) in &*requests {
            let _ = writeln!(
                text,
                "burn_peft_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}"
            );
        }
        drop(requests);
        let counters = [
            (
                "prompt_tokens_total",
                "Tokens of prompts that were computed.",
                &engine.prompt_tokens,
            ),
            (
                "cached_tokens_total",
                "Tokens of prompts that were in the cache.",
                &engine.cached_tokens,
            ),
            (
                "generated_tokens_total",
                "New tokens.",
                &engine.generated_tokens,
            ),
            ("steps_total", "Steps of the engine.", &engine.steps),
        ];
        for (name, help, value) in counters {
            one(
                &mut text,
                name,
                help,
                "counter",
                value.load(Ordering::Relaxed),
            );
        }
        let gauges = [
            (
                "requests_waiting",
                "Rows that wait for a place in the batch.",
                &engine.waiting,
            ),
            ("requests_running", "Rows that run.", &engine.running),
        ];
        for (name, help, value) in gauges {
            one(
                &mut text,
                name,
                help,
                "gauge",
                value.load(Ordering::Relaxed) as u64,
            );
        }
        let histograms = [
            (
                &self.first_token,
                "time_to_first_token_seconds",
                "From a request to its first token.",
            ),
            (
                &self.response,
                "response_seconds",
                "From a request to its response, or the begin of a stream.",
            ),
        ];
        for (histogram, name, help) in histograms {
            let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            histogram.write(&format!("burn_peft_{name}"), help, &mut text);
        }
        text
    }
}

fn note(histogram: &Mutex<Histogram>, duration: Duration) {
    let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    histogram.note(duration);
}

fn one(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    let _ = writeln!(
        text,
        "# HELP burn_peft_{name} {help}\n# TYPE burn_peft_{name} {kind}\nburn_peft_{name} {value}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_within_their_bound() {
        let mut histogram = Histogram::default();
        for milliseconds in [4, 5, 20, 1_000_000] {
            histogram.note(Duration::from_millis(milliseconds));
        }
        let mut text = String::new();
        histogram.write("t", "a test", &mut text);
        for line in [
            "# TYPE t histogram",
            "t_bucket{le=\"0.005\"} 2",
            "t_bucket{le=\"0.01\"} 2",
            "t_bucket{le=\"0.025\"} 3",
            "t_bucket{le=\"300\"} 3",
            "t_bucket{le=\"+Inf\"} 4",
            "t_sum 1000.029",
            "t_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn figures_have_a_type_each_and_labels() {
        let metrics = Metrics::default();
        metrics.request("/health", 200, Duration::ZERO);
        let text = metrics.text(&Counters::default());
        assert!(
            text.contains("burn_peft_requests_total{path=\"/health\",status=\"200\"} 1\n"),
            "{text}"
        );
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
