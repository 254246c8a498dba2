//! Hubs that are slow or lie, on this machine.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tempfile::tempdir;

use super::*;

/// What a hub answers to a path.
#[derive(Debug, Clone)]
enum Answer {
    /// Status, headers, body.
    Whole(u16, String, Vec<u8>),
    /// The first bytes of a longer body, and then nothing.
    Stalls(String, Vec<u8>),
    /// The first bytes of a longer body, and then the end of the connection.
    Breaks(String, Vec<u8>),
    /// A body of zeros that never ends and has no length.
    Endless(String),
    /// Nothing at all.
    Silence,
}

/// A file with its etag.
fn file(etag: &str, body: &str) -> Answer {
    let headers = format!("etag: \"{etag}\"\r\nx-repo-commit: c0ffee\r\n");
    Answer::Whole(200, headers, body.into())
}

fn list(names: &[&str]) -> Answer {
    let siblings: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"rfilename": name}))
        .collect();
    let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings});
    Answer::Whole(200, String::new(), body.to_string().into())
}

/// Bytes that a file without weights may have here.
const LONGEST_SMALL: u64 = 1 << 16;
const LIST: &str = "/api/models/owner/model/revision/main";
const CONFIG: &str = "/owner/model/resolve/main/config.json";

/// A hub with these answers, and the requests that it got.
struct Hub {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn new(answers: &[(&str, Answer)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.iter().cloned();
        let answers: BTreeMap<String, Answer> = answers
            .map(|(path, answer)| (path.to_owned(), answer))
            .collect();
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

    /// Fetches into a cache.
    fn fetch(&self, cache: &Path) -> Result<PathBuf> {
        let mut client = Client::new(&self.endpoint, None, Duration::from_millis(300));
        client.longest_small = LONGEST_SMALL;
        fetch(
            &client,
            "owner/model",
            "main",
            &cache.join("models--owner--model"),
        )
    }

    fn error(&self) -> String {
        let root = tempdir().unwrap();
        let cache = root.path().join("cache");
        let error = format!(
            "{:#}",
            self.fetch(&cache).expect_err("a hub that is no good")
        );
        assert!(!error.contains('\n'), "{error}");
        // Nothing is written outside of the cache.
        for entry in fs::read_dir(root.path()).unwrap() {
            assert_eq!(entry.unwrap().path(), cache);
        }
        error
    }
}

fn answer(stream: TcpStream, answers: &BTreeMap<String, Answer>, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let range = headers
        .iter()
        .find_map(|line| line.strip_prefix("Range: bytes="));
    let start: Option<usize> = range.map(|range| range.trim_end_matches('-').parse().unwrap());
    let note = start.map_or_else(|| path.clone(), |start| format!("{path} from {start}"));
    seen.lock().unwrap().push(note);
    let mut stream = stream;
    let mut send = |status: u16, headers: &str, length: usize, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).ok();
        stream.write_all(body).ok();
        stream.flush().ok();
    };
    match answers.get(&path) {
        None => send(404, "", 0, b""),
        Some(Answer::Whole(status, headers, body)) => match start {
            Some(start) => {
                let range = format!(
                    "content-range: bytes {start}-{}/{}\r\n",
                    body.len() - 1,
                    body.len()
                );
                send(
                    206,
                    &format!("{headers}{range}"),
                    body.len() - start,
                    &body[start..],
                );
            }
            None => send(*status, headers, body.len(), body),
        },
        Some(Answer::Stalls(headers, body)) => {
            send(200, headers, 2 * body.len(), body);
            thread::sleep(Duration::from_secs(3));
        }
        Some(Answer::Breaks(headers, body)) => send(200, headers, 2 * body.len(), body),
        Some(Answer::Endless(headers)) => {
            let head = format!("HTTP/1.1 200 X\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(head.as_bytes()).ok();
            while stream.write_all(&[0; 1 << 12]).is_ok() {}
        }
        Some(Answer::Silence) => thread::sleep(Duration::from_secs(3)),
    }
}

#[test]
fn a_hub_id_is_owner_slash_model() {
    assert!(is_hub_id("Qwen/Qwen2.5-1.5B-Instruct"));
    for path in ["model", "./model/x", "a/b/c", "/abs", "../x"] {
        assert!(!is_hub_id(path), "{path}");
    }
}

#[test]
fn files_are_put_where_other_programs_look_for_them() {
    let elsewhere = Hub::new(&[("/blob", file("of-the-store", "weights"))]);
    let headers = format!(
        "location: {}/blob\r\nx-repo-commit: c0ffee\r\nx-linked-etag: \"e2\"\r\netag: \"e3\"\r\n",
        elsewhere.endpoint
    );
    let hub = Hub::new(&[
        (
            LIST,
            list(&[
                "config.json",
                "model.safetensors",
                "pytorch_model.bin",
                "onnx/model.onnx",
            ]),
        ),
        (CONFIG, file("e1", "{}")),
        (
            "/owner/model/resolve/main/model.safetensors",
            Answer::Whole(302, headers, Vec::new()),
        ),
    ]);
    let cache = tempdir().unwrap();
    let snapshot = hub.fetch(cache.path()).unwrap();
    let repo = cache.path().join("models--owner--model");
    assert_eq!(snapshot, repo.join("snapshots/c0ffee"));
    let read = |path: &str| fs::read_to_string(repo.join(path)).unwrap();
    for path in ["snapshots/c0ffee/model.safetensors", "blobs/e2"] {
        assert_eq!(read(path), "weights");
    }
    assert_eq!(
        (read("snapshots/c0ffee/config.json"), read("refs/main")),
        ("{}".into(), "c0ffee".into())
    );
    // What huggingface_hub's own client finds there.
    let found = Cache::new(cache.path().to_owned())
        .model("owner/model".into())
        .get("config.json");
    assert_eq!(found, Some(snapshot.join("config.json")));
    assert_eq!(fs::read_dir(&snapshot).unwrap().count(), 2);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    for name in [
        "../../x.safetensors",
        "/x.safetensors",
        "a/../../x",
        "..\\x.safetensors",
        "a//b",
    ] {
        let error = Hub::new(&[
            (LIST, list(&["config.json", name])),
            (CONFIG, file("e1", "{}")),
        ])
        .error();
        assert!(error.contains(&format!("{name:?}")), "{error}");
    }
    for (headers, named) in [
        ("etag: \"../../x\"\r\n", "the hub's etag is \"../../x\""),
        (
            "x-linked-etag: /x\r\netag: e\r\n",
            "the hub's etag is \"/x\"",
        ),
        (
            "etag: e\r\nx-repo-commit: ../../../x\r\n",
            "the hub's commit is \"../../../x\"",
        ),
        ("x-repo-commit: c0ffee\r\n", "the hub sent no etag"),
        ("etag: \"\"\r\n", "the hub's etag is \"\""),
    ] {
        let config = Answer::Whole(200, headers.into(), b"{}".to_vec());
        let error = Hub::new(&[(LIST, list(&["config.json"])), (CONFIG, config)]).error();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_hub_that_says_nothing_is_not_waited_for() {
    let silent = Hub::new(&[(LIST, Answer::Silence)]).error();
    let headers = "etag: e1\r\nx-repo-commit: c0ffee\r\n".to_owned();
    let stalls = Answer::Stalls(headers, b"half".to_vec());
    let stalled = Hub::new(&[(LIST, list(&["config.json"])), (CONFIG, stalls)]).error();
    for error in [silent, stalled] {
        assert!(error.contains("the hub said nothing for 300ms"), "{error}");
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Hub {
        endpoint: format!("http://{gone}"),
        requests: Arc::default(),
    };
    assert!(gone.error().contains("the connection broke"));
}

#[test]
fn what_a_broken_connection_left_is_not_fetched_again() {
    let headers = "etag: e1\r\nx-repo-commit: c0ffee\r\n".to_owned();
    for (broken, reason) in [
        (Answer::Stalls as fn(_, _) -> _, "the hub said nothing"),
        (Answer::Breaks, "the connection broke"),
    ] {
        let cache = tempdir().unwrap();
        let begins = broken(headers.clone(), b"0123".to_vec());
        let hub = Hub::new(&[(LIST, list(&["config.json"])), (CONFIG, begins)]);
        let error = format!("{:#}", hub.fetch(cache.path()).expect_err("it breaks"));
        assert!(
            error.starts_with("config.json: ") && error.contains(reason),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
        let hub = Hub::new(&[
            (LIST, list(&["config.json"])),
            (CONFIG, file("e1", "01234567")),
        ]);
        let snapshot = hub.fetch(cache.path()).unwrap();
        assert_eq!(
            fs::read_to_string(snapshot.join("config.json")).unwrap(),
            "01234567"
        );
        let requests = hub.requests.lock().unwrap();
        assert_eq!(requests[2], format!("{CONFIG} from 4"));
    }
}

#[test]
fn a_part_that_is_longer_than_the_file_is_fetched_anew() {
    let cache = tempdir().unwrap();
    let blobs = cache.path().join("models--owner--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("e1.part"), "something else").unwrap();
    let hub = Hub::new(&[(LIST, list(&["config.json"])), (CONFIG, file("e1", "{}"))]);
    let snapshot = hub.fetch(cache.path()).unwrap();
    assert_eq!(
        fs::read_to_string(snapshot.join("config.json")).unwrap(),
        "{}"
    );
}

#[test]
fn a_body_that_never_ends_is_not_written_without_bound() {
    let headers = || "etag: e1\r\nx-repo-commit: c0ffee\r\n".to_owned();
    let endless = Hub::new(&[
        (LIST, list(&["config.json"])),
        (CONFIG, Answer::Endless(headers())),
    ]);
    assert!(endless.error().contains("more than the 65536 bytes"));
    let long = "x".repeat(LONGEST_SMALL as usize + 1);
    let long = Hub::new(&[(LIST, list(&["config.json"])), (CONFIG, file("e1", &long))]);
    assert!(long.error().contains("it has 65537 bytes"));
    let weights = Hub::new(&[
        (LIST, list(&["model.safetensors"])),
        (
            "/owner/model/resolve/main/model.safetensors",
            Answer::Endless(headers()),
        ),
    ]);
    assert!(weights.error().contains("does not say how long it is"));
}

#[test]
fn a_file_in_a_subfolder_is_linked_to_its_blob() {
    const TOOLS: &str = "additional_chat_templates/tool_use.jinja";
    let hub = Hub::new(&[
        (LIST, list(&["config.json", TOOLS])),
        (CONFIG, file("e1", "{}")),
        (
            "/owner/model/resolve/main/additional_chat_templates/tool_use.jinja",
            file("e2", "tools"),
        ),
    ]);
    let cache = tempdir().unwrap();
    let snapshot = hub.fetch(cache.path()).unwrap();
    assert_eq!(fs::read_to_string(snapshot.join(TOOLS)).unwrap(), "tools");
}

#[test]
fn refusals_of_the_hub_are_told_in_words() {
    let answers =
        |status| Hub::new(&[(LIST, Answer::Whole(status, String::new(), Vec::new()))]).error();
    assert!(answers(401).contains("need a token"));
    assert!(answers(404).contains("does not have it"));
    assert!(answers(500).contains("status 500"));
    let nonsense = Answer::Whole(200, String::new(), b"<html>".to_vec());
    assert!(
        Hub::new(&[(LIST, nonsense)])
            .error()
            .contains("no list of a repository's files")
    );
    assert!(
        Hub::new(&[(LIST, list(&["x.bin"]))])
            .error()
            .contains("no model")
    );
    let around = Answer::Whole(302, format!("location: {LIST}\r\n"), Vec::new());
    assert!(Hub::new(&[(LIST, around)]).error().contains("redirections"));
}
