//! A hub on this machine that answers as it is told.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What a hub answers to a request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Status, headers, body; of a body that is asked for from a byte on, the rest.
    Whole(u16, String, Vec<u8>),
    /// The same, to a server that knows no ranges.
    WithoutRanges(String, Vec<u8>),
    /// The first bytes of a body of this many bytes, and then nothing.
    Stalls(String, Vec<u8>, usize),
    /// The first bytes of a body of this many bytes, and then the end of the connection.
    Breaks(String, Vec<u8>, usize),
    /// A body of zeros that never ends and has no length.
    Endless(String),
    /// Nothing at all.
    Silence,
}

/// A file with its etag.
pub(super) fn file(etag: &str, body: &str) -> Answer {
    Answer::Whole(200, headers(etag), body.into())
}

/// What a hub says of a file.
pub(super) fn headers(etag: &str) -> String {
    format!("etag: \"{etag}\"\r\nx-repo-commit: c0ffee\r\n")
}

/// A status, and what the hub calls the fault.
pub(super) fn refusal(status: u16, code: &str) -> Answer {
    Answer::Whole(status, format!("x-error-code: {code}\r\n"), Vec::new())
}

/// The list of a repository's files.
pub(super) fn list(names: &[&str]) -> Answer {
    let siblings: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"rfilename": name}))
        .collect();
    let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings});
    Answer::Whole(200, String::new(), body.to_string().into())
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: String,
    /// The first byte that was asked for, where it was not the first of the file.
    pub(super) start: Option<usize>,
    pub(super) authorization: Option<String>,
}

/// A hub with these answers, and the requests that it got.
pub(super) struct Server {
    pub(super) endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

type Answers = Arc<Mutex<BTreeMap<String, Vec<Answer>>>>;

impl Server {
    /// Answers given for one path are given one after the other, the last of them again and again.
    pub(super) fn new(answers: &[(&str, Answer)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut by_path: BTreeMap<String, Vec<Answer>> = BTreeMap::new();
        for (path, answer) in answers {
            let known = by_path.entry((*path).to_owned()).or_default();
            known.push(answer.clone());
        }
        let answers: Answers = Arc::new(Mutex::new(by_path));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, seen) = (answers.clone(), seen.clone());
                thread::spawn(move || answer(stream, &answers, &seen));
            }
        });
        Self { endpoint, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, answers: &Answers, seen: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        let mut found = headers.iter().filter_map(|line| line.split_once(": "));
        found.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    };
    let start = header("range").and_then(|range| range.strip_prefix("bytes="));
    let start: Option<usize> = start.map(|start| start.trim_end_matches('-').parse().unwrap());
    seen.lock().unwrap().push(Request {
        path: path.clone(),
        start,
        authorization: header("authorization").map(str::to_owned),
    });
    let next = {
        let mut answers = answers.lock().unwrap();
        answers.get_mut(&path).map(|known| match known.len() {
            1 => known[0].clone(),
            _ => known.remove(0),
        })
    };
    send(stream, next, start);
}

fn send(mut stream: TcpStream, answer: Option<Answer>, start: Option<usize>) {
    let mut send = |status: u16, headers: &str, length: usize, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).ok();
        stream.write_all(body).ok();
        stream.flush().ok();
    };
    match answer {
        None => send(404, "", 0, b""),
        Some(Answer::Whole(200, headers, body)) if start.is_some() => {
            let (start, size) = (start.unwrap_or(0), body.len());
            let range = format!("content-range: bytes {start}-{}/{size}\r\n", size - 1);
            send(206, &(headers + &range), size - start, &body[start..]);
        }
        Some(Answer::Whole(status, headers, body)) => send(status, &headers, body.len(), &body),
        Some(Answer::WithoutRanges(headers, body)) => send(200, &headers, body.len(), &body),
        Some(Answer::Stalls(headers, body, size)) => {
            send(200, &headers, size, &body);
            thread::sleep(Duration::from_secs(3));
        }
        Some(Answer::Breaks(headers, body, size)) => send(200, &headers, size, &body),
        Some(Answer::Endless(headers)) => {
            let head = format!("HTTP/1.1 200 X\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).ok();
            while stream.write_all(&[0; 1 << 12]).is_ok() {}
        }
        Some(Answer::Silence) => thread::sleep(Duration::from_secs(3)),
    }
}
