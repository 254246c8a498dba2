//! Adapters and models by hub id, from a hub on this machine.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// A hub with the repositories `someone/prompt`, which an adapter is in, and `someone/base`.
struct Hub {
    endpoint: String,
    home: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &seen);
            }
        });
        Self {
            endpoint,
            home: tempdir().unwrap(),
            requests,
        }
    }

    /// A command in an empty folder that knows this hub and no other.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = burn_peft(args);
        command
            .current_dir(self.home.path())
            .env("HF_ENDPOINT", &self.endpoint)
            .env("NO_PROXY", "127.0.0.1")
            .env("HF_HOME", self.home.path().join("hf"))
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN")
            .env_remove("HF_HUB_CACHE");
        command
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// The folder of a repository.
fn repository(id: &str) -> Option<PathBuf> {
    match id {
        "someone/prompt" => Some(fixture::path("cases/tied_gqa-prompt-tuning-random/adapter")),
        "someone/base" => Some(fixture::path("models/tied_gqa")),
        _ => None,
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .for_each(drop);
    seen.lock().unwrap().push(path.clone());
    let (status, body) = match content(&path) {
        Some(body) => (200, body),
        None => (404, Vec::new()),
    };
    let name = path.replace('/', "-");
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\netag: \"e{name}\"\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

fn content(path: &str) -> Option<Vec<u8>> {
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let (id, revision) = rest.split_once("/revision/")?;
        assert!(["main?blobs=true", "v1?blobs=true"].contains(&revision));
        let names = fs::read_dir(repository(id)?).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: Vec<Value> = names
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let info = serde_json::json!({"sha": "c0ffee", "siblings": files});
        return Some(info.to_string().into());
    }
    let (id, file) = path.strip_prefix('/')?.split_once("/resolve/c0ffee/")?;
    Some(fs::read(repository(id)?.join(file)).unwrap())
}

const GENERATE: [&str; 5] = ["generate", "--prompt", "the cat", "--max-new-tokens", "2"];

#[test]
fn an_adapter_and_its_base_are_used_by_their_hub_ids() {
    let hub = Hub::new();
    let ids = ["--adapter", "someone/prompt", "--model", "someone/base"];
    let fetched = succeed(hub.command(&GENERATE).args(ids)).stdout;
    let files = [
        "hf/hub/models--someone--prompt/snapshots/c0ffee/adapter_model.safetensors",
        "hf/hub/models--someone--base/refs/main",
    ];
    for file in files {
        assert!(hub.home.path().join(file).is_file(), "{file}");
    }
    let folder = repository("someone/prompt").unwrap();
    let folders = ["--adapter", text(&folder), "--model", &model_path()];
    assert_eq!(
        fetched,
        succeed(hub.command(&GENERATE).args(folders)).stdout
    );
    // What is in the cache needs no hub.
    let asked = hub.requests();
    let offline = succeed(hub.command(&GENERATE).args(ids).env("HF_HUB_OFFLINE", "1"));
    assert_eq!((offline.stdout, hub.requests()), (fetched, asked));
    let inspect = succeed(&mut hub.command(&["inspect", "someone/prompt@v1", "--json"]));
    assert_eq!(lines(&inspect)[0]["kind"], "adapter");
}

#[test]
fn a_run_starts_from_an_adapter_by_its_hub_id() {
    let hub = Hub::new();
    let data = rows_file(hub.home.path(), 4);
    let mut train = hub.command(&["train", "--no-tui", "--max-steps", "1", "--output", "out"]);
    train.args(["--data", &data, "--model", &model_path()]);
    train.args(["--set", "method.init_from=someone/prompt"]);
    succeed(&mut train);
    let run = fs::read_to_string(hub.home.path().join("out/run.toml")).unwrap();
    assert!(run.contains("init_from = \"someone/prompt\"\n"), "{run}");
    // The same run again, from what it wrote.
    let again = ["train", "--config", "out/run.toml", "--resume", "--no-tui"];
    succeed(hub.command(&again).args(["--max-steps", "2"]));
}

#[test]
fn an_adapter_that_is_nowhere_is_refused_in_one_line_that_says_both_readings() {
    let hub = Hub::new();
    let refusal = |adapter: &str| {
        let mut command = hub.command(&GENERATE);
        command.args(["--model", &model_path(), "--adapter", adapter]);
        refused(&mut command)
    };
    let line = refusal("someone/else");
    assert!(
        line.contains(
            "someone/else: no such folder, and not fetched from the hub: the hub does not have it"
        ),
        "{line}"
    );
    let line = refusal("someone/base");
    assert!(line.contains("so it is no adapter"), "{line}");
    let asked = hub.requests();
    fs::create_dir(hub.home.path().join("runs")).unwrap();
    for path in [
        "runs/promt",
        "./a/b",
        "a/b/c",
        "promt",
        "~/x",
        "a/x.safetensors",
    ] {
        let line = refusal(path);
        assert!(line.contains(&format!("{path}: no such folder")), "{line}");
    }
    let mut offline = hub.command(&GENERATE);
    offline.args(["--adapter", "someone/else"]);
    let line = refused(offline.env("HF_HUB_OFFLINE", "1"));
    assert!(line.contains("not in the cache"), "{line}");
    assert_eq!(hub.requests(), asked, "nothing of this is asked for");
}
