//! A server in a process of its own, and plain requests to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::super::{Command, burn_peft, fixture, model_path, text};

/// An adapter of each method on the fixture model: the name in requests, and the fixture.
pub(super) const ADAPTERS: [(&str, &str); 5] = [
    ("bitfit", "tied_gqa-beft-qkv"),
    ("prompt", "tied_gqa-prompt-tuning-random"),
    ("p-tuning", "tied_gqa-p-tuning-mlp"),
    ("prefix", "tied_gqa-prefix-tuning"),
    ("v2", "tied_gqa-p-tuning-v2"),
];

/// The folder of a fixture's adapter.
pub(super) fn folder(case: &str) -> String {
    text(&fixture::path(&format!("cases/{case}/adapter"))).to_owned()
}

/// A server, killed with the test that has it.
pub(super) struct Server {
    child: Child,
    pub(super) address: String,
}

impl Server {
    /// Serves the fixture model with all adapters.
    pub(super) fn of_all(more: &[&str]) -> Self {
        let adapters = ADAPTERS.map(|(name, case)| format!("{name}={}", folder(case)));
        let model = model_path();
        let mut args = vec!["--model", &model];
        args.extend(adapters.iter().flat_map(|adapter| ["--adapter", adapter]));
        args.extend(more);
        Self::start(&args)
    }

    /// Serves at a free port.
    pub(super) fn start(args: &[&str]) -> Self {
        let mut command = burn_peft(&["serve", "--port", "0"]);
        command.args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The status and the body of an answer.
    pub(super) fn get(&self, path: &str) -> (u16, String) {
        read(ureq::get(&self.url(path)).call())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = read(ureq::post(&self.url(path)).send_json(body));
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
        (status, body)
    }

    /// The answer of a request that succeeds.
    pub(super) fn answer(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    /// The events of a stream, without the mark at its end.
    pub(super) fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = ureq::post(&self.url(path)).send_json(body).unwrap();
        assert_eq!(response.content_type(), "text/event-stream");
        let text = response.into_string().unwrap();
        let events = text
            .strip_suffix("data: [DONE]\n\n")
            .unwrap_or_else(|| panic!("{text}"));
        let events = events.split_terminator("\n\n");
        events
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    /// What comes back for these bytes, until the server closes the connection.
    pub(super) fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may be done with it before all of it is written.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Asks for a stream, and returns the connection once its first event is there.
    pub(super) fn begin_stream(&self, body: &Value) -> BufReader<TcpStream> {
        let body = body.to_string();
        let mut stream = self.connect();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "no event");
        }
        stream
    }

    /// A figure of `/metrics`.
    pub(super) fn figure(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let name = format!("burn_peft_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value
            .unwrap_or_else(|| panic!("{name}: {text}"))
            .parse()
            .unwrap()
    }

    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// How it ends by itself.
    pub(super) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the server", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done` or fails.
pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn read(answer: Result<ureq::Response, ureq::Error>) -> (u16, String) {
    match answer {
        Ok(response) | Err(ureq::Error::Status(_, response)) => {
            (response.status(), response.into_string().unwrap())
        }
        Err(error) => panic!("{error}"),
    }
}
