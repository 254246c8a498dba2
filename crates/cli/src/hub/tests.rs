//! Hubs that are slow, break off or lie, on this machine.

mod downloads;
mod server;

use std::{fs, net::TcpListener, time::Duration};

use hf_hub::Cache;
use ring::digest;
use tempfile::tempdir;

use super::{retry::Retries, *};
use server::{Answer, Server, file, headers, list, refusal};

/// Bytes that a file without weights may have here.
const LONGEST_SMALL: u64 = 1 << 16;
const LIST: &str = "/api/models/owner/model/revision/main?blobs=true";
const CONFIG: &str = "/owner/model/resolve/c0ffee/config.json";
const WEIGHTS: &str = "/owner/model/resolve/c0ffee/model.safetensors";

/// A cache, and the hub it is filled from.
struct Reader {
    environment: Environment,
    client: Client,
    name: HubName,
}

impl Reader {
    fn new(server: &Server, cache: &Path) -> Self {
        Self::at(&server.endpoint, cache, None)
    }

    fn at(endpoint: &str, cache: &Path, token: Option<&str>) -> Self {
        let name = HubName::parse("owner/model").unwrap();
        let environment = Environment {
            endpoint: endpoint.to_owned(),
            token: token.map(str::to_owned),
            cache: cache.to_owned(),
            offline: false,
            timeout: Duration::from_millis(300),
            no_proxy: environment::NoProxy::of(&["127.0.0.1"]),
        };
        let mut client = Client::new(&environment, &name, "main");
        client.longest_small = LONGEST_SMALL;
        client.retries = Retries {
            most: 2,
            first_wait: Duration::from_millis(1),
        };
        Self {
            environment,
            client,
            name,
        }
    }

    /// Fetches a model.
    fn fetch(&self) -> Result<PathBuf> {
        let folder = self.environment.cache.join("models--owner--model");
        fetch(
            &self.client,
            &self.name,
            "main",
            &folder,
            Contents::Model,
            false,
        )
    }
}

/// Why nothing comes from such a hub, in one line.
fn error_of(answers: &[(&str, Answer)]) -> String {
    error_from(&Server::new(answers).endpoint, None)
}

fn error_from(endpoint: &str, token: Option<&str>) -> String {
    let root = tempdir().unwrap();
    let cache = root.path().join("cache");
    let reader = Reader::at(endpoint, &cache, token);
    let error = format!("{:#}", reader.fetch().expect_err("a hub that is no good"));
    assert!(!error.contains('\n'), "{error}");
    // Nothing is written outside of the cache.
    for entry in fs::read_dir(root.path()).unwrap() {
        assert_eq!(entry.unwrap().path(), cache);
    }
    error
}

/// Why a hub that answers so with its list of files is of no use.
fn error_for_list(answer: Answer) -> String {
    error_of(&[(LIST, answer)])
}

#[test]
fn files_are_put_where_other_programs_look_for_them() {
    let elsewhere = Server::new(&[("/blob", file("of-the-store", "weights"))]);
    let headers = format!(
        "location: {}/blob\r\nx-repo-commit: c0ffee\r\nx-linked-etag: \"e2\"\r\netag: \"e3\"\r\n",
        elsewhere.endpoint
    );
    let hub = Server::new(&[
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
        (WEIGHTS, Answer::Whole(302, headers, Vec::new())),
    ]);
    let cache = tempdir().unwrap();
    let snapshot = Reader::new(&hub, cache.path()).fetch().unwrap();
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
    // What another client finds there.
    let found = Cache::new(cache.path().to_owned())
        .model("owner/model".into())
        .get("config.json");
    assert_eq!(found, Some(snapshot.join("config.json")));
    assert_eq!(fs::read_dir(&snapshot).unwrap().count(), 2);
}

#[test]
fn the_token_is_told_the_hub_and_nobody_else() {
    let elsewhere = Server::new(&[("/blob", file("e2", "weights"))]);
    let headers = format!(
        "location: {}/blob\r\nx-linked-etag: \"e2\"\r\n",
        elsewhere.endpoint
    );
    let hub = Server::new(&[
        (LIST, list(&["config.json", "model.safetensors"])),
        (CONFIG, file("e1", "{}")),
        (WEIGHTS, Answer::Whole(302, headers, Vec::new())),
    ]);
    let cache = tempdir().unwrap();
    let reader = Reader::at(&hub.endpoint, cache.path(), Some("hf_mine"));
    reader.fetch().unwrap();
    assert_eq!(hub.requests().len(), 3);
    for request in hub.requests() {
        assert_eq!(request.authorization.as_deref(), Some("Bearer hf_mine"));
    }
    let [request] = &elsewhere.requests()[..] else {
        panic!("the blob was asked for once")
    };
    assert_eq!(request.authorization, None);
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
        let error = error_of(&[
            (LIST, list(&["config.json", name])),
            (CONFIG, file("e1", "{}")),
        ]);
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
            "another commit than c0ffee",
        ),
        ("x-repo-commit: c0ffee\r\n", "the hub sent no etag"),
        ("etag: \"\"\r\n", "the hub's etag is \"\""),
    ] {
        let config = Answer::Whole(200, headers.into(), b"{}".to_vec());
        let error = error_of(&[(LIST, list(&["config.json"])), (CONFIG, config)]);
        assert!(error.contains(named), "{error}");
    }
    let outside = r#"{"sha": "../../x", "siblings": [{"rfilename": "config.json"}]}"#;
    let outside = Answer::Whole(200, String::new(), outside.into());
    assert!(error_for_list(outside).contains("the hub's commit is \"../../x\""));
}

#[test]
fn a_hub_that_says_nothing_is_not_waited_for() {
    let silent = error_for_list(Answer::Silence);
    let stalls = Answer::Stalls(headers("e1"), b"half".to_vec(), 8);
    let stalled = error_of(&[(LIST, list(&["config.json"])), (CONFIG, stalls)]);
    for error in [silent, stalled] {
        assert!(error.contains("the hub said nothing for 300ms"), "{error}");
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = error_from(&format!("http://{gone}"), None);
    assert!(error.contains("there is no connection to"), "{error}");
}

#[test]
fn a_file_in_a_subfolder_is_linked_to_its_blob() {
    const TOOLS: &str = "additional_chat_templates/tool_use.jinja";
    let hub = Server::new(&[
        (LIST, list(&["config.json", TOOLS])),
        (CONFIG, file("e1", "{}")),
        (
            "/owner/model/resolve/c0ffee/additional_chat_templates/tool_use.jinja",
            file("e2", "tools"),
        ),
    ]);
    let cache = tempdir().unwrap();
    let snapshot = Reader::new(&hub, cache.path()).fetch().unwrap();
    assert_eq!(fs::read_to_string(snapshot.join(TOOLS)).unwrap(), "tools");
}

#[test]
fn what_may_pass_is_tried_again() {
    let cache = tempdir().unwrap();
    let asked_to_wait = Answer::Whole(429, "retry-after: 0\r\n".into(), Vec::new());
    let hub = Server::new(&[
        (LIST, refusal(503, "")),
        (LIST, asked_to_wait),
        (LIST, list(&["config.json"])),
        (CONFIG, refusal(500, "")),
        (CONFIG, file("e1", "{}")),
    ]);
    Reader::new(&hub, cache.path()).fetch().unwrap();
    assert_eq!(hub.requests().len(), 5);
    let error = error_for_list(refusal(500, ""));
    assert!(error.contains("status 500, 3 times in a row"), "{error}");
}

#[test]
fn refusals_of_the_hub_are_told_in_words() {
    for (status, code, token, words) in [
        (
            401,
            "RepoNotFound",
            None,
            "no public repository of that name",
        ),
        (401, "", Some("hf_mine"), "that the token may read"),
        (401, "GatedRepo", None, "it is gated: accept its conditions"),
        (403, "GatedRepo", Some("hf_mine"), "has no access to it"),
        (403, "", Some("hf_mine"), "does not allow it"),
        (404, "RepoNotFound", None, "the hub does not have it"),
        (404, "RevisionNotFound", None, "it has no revision `main`"),
        (418, "", None, "answers with status 418"),
    ] {
        let hub = Server::new(&[(LIST, refusal(status, code))]);
        let error = error_from(&hub.endpoint, token);
        assert!(error.contains(words), "{error}");
        assert_eq!(hub.requests().len(), 1, "it is not tried again: {error}");
    }
    let invalid = "x-error-message: Invalid credentials in Authorization header\r\n";
    let invalid = Answer::Whole(401, invalid.into(), Vec::new());
    let hub = Server::new(&[(LIST, invalid)]);
    let error = error_from(&hub.endpoint, Some("hf_old"));
    assert!(error.contains("does not accept the token"), "{error}");
    let nonsense = Answer::Whole(200, String::new(), b"<html>".to_vec());
    assert!(error_for_list(nonsense).contains("no list of a repository's files"));
    assert!(error_for_list(list(&["x.bin"])).contains("no model"));
    let around = Answer::Whole(302, format!("location: {LIST}\r\n"), Vec::new());
    assert!(error_for_list(around).contains("redirections"));
}

#[test]
fn of_an_adapter_only_its_two_files_are_fetched() {
    let path = |name: &str| format!("/owner/model/resolve/c0ffee/{name}");
    let (config, weights) = (path(CONFIG_FILE), path(WEIGHTS_FILE));
    let hub = Server::new(&[
        (
            LIST,
            list(&[CONFIG_FILE, WEIGHTS_FILE, "README.md", "optimizer.pt"]),
        ),
        (&config, file("e1", "{}")),
        (&weights, file("e2", "weights")),
    ]);
    let cache = tempdir().unwrap();
    let reader = Reader::new(&hub, cache.path());
    let get = |environment: &Environment| {
        let found = snapshot(environment, &reader.name, "main", Contents::Adapter);
        found.map_err(|error| format!("{error:#}"))
    };
    let folder = get(&reader.environment).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    // The next one is from the cache: with the hub, without it, and when it is not asked.
    assert_eq!(get(&reader.environment).unwrap(), folder);
    assert_eq!(hub.requests().len(), 4);
    let gone = Environment {
        endpoint: "http://127.0.0.1:9".into(),
        ..Reader::new(&hub, cache.path()).environment
    };
    assert_eq!(get(&gone).unwrap(), folder);
    let offline = Environment {
        offline: true,
        ..Reader::new(&hub, cache.path()).environment
    };
    assert_eq!(get(&offline).unwrap(), folder);
    let other = snapshot(&offline, &reader.name, "v2", Contents::Adapter).unwrap_err();
    assert!(other.to_string().contains("not in the cache (revision v2)"));
    assert_eq!(hub.requests().len(), 4);
}

#[test]
fn a_new_state_of_a_branch_is_fetched() {
    let adapter = |commit: &str| {
        let body = serde_json::json!({
            "sha": commit,
            "siblings": [{"rfilename": CONFIG_FILE}, {"rfilename": WEIGHTS_FILE}],
        });
        Answer::Whole(200, String::new(), body.to_string().into())
    };
    let sent = |etag: &str| Answer::Whole(200, format!("etag: \"{etag}\"\r\n"), etag.into());
    let path = |commit: &str, name: &str| format!("/owner/model/resolve/{commit}/{name}");
    let hub = Server::new(&[
        (LIST, adapter("c1")),
        (LIST, adapter("c2")),
        (&path("c1", CONFIG_FILE), sent("e1")),
        (&path("c1", WEIGHTS_FILE), sent("e2")),
        (&path("c2", CONFIG_FILE), sent("e1")),
        (&path("c2", WEIGHTS_FILE), sent("e3")),
    ]);
    let cache = tempdir().unwrap();
    let reader = Reader::new(&hub, cache.path());
    let weights = || {
        let folder = snapshot(&reader.environment, &reader.name, "main", Contents::Adapter);
        fs::read_to_string(folder.unwrap().join(WEIGHTS_FILE)).unwrap()
    };
    assert_eq!((weights(), weights()), ("e2".into(), "e3".into()));
}

#[test]
fn repositories_that_are_no_adapters_are_refused_by_what_they_are() {
    let refused = |names: &[&str], contents: Contents| {
        let hub = Server::new(&[(LIST, list(names))]);
        let cache = tempdir().unwrap();
        let reader = Reader::new(&hub, cache.path());
        let found = snapshot(&reader.environment, &reader.name, "main", contents);
        found.unwrap_err().to_string()
    };
    let error = refused(&[CONFIG_FILE, PICKLED_ADAPTER], Contents::Adapter);
    assert!(
        error.contains("pickle") && error.contains("save_file"),
        "{error}"
    );
    let error = refused(&["config.json", "model.safetensors"], Contents::Adapter);
    assert!(error.contains("it is no adapter"), "{error}");
    let error = refused(&[CONFIG_FILE, WEIGHTS_FILE], Contents::Model);
    assert!(error.contains("--adapter"), "{error}");
}
