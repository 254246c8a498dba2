//! Who is not let in, and what is not answered.

use std::{fs, io::Write};

use serde_json::{Value, json};
use tempfile::tempdir;

use super::{
    super::{burn_peft, model_path, refused, text},
    client::{Server, folder, read},
};

const COMPLETIONS: &str = "/v1/completions";

/// A request with these lines of its header and this body.
fn request(first_line: &str, header: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{first_line} HTTP/1.1\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn status(answer: &str) -> u16 {
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn bad_requests_get_errors_as_objects_and_the_server_goes_on() {
    let server = Server::of_all(&["--max-context", "64"]);
    let chat = "/v1/chat/completions";
    let message = json!([{"role": "user", "content": "hi"}]);
    for (path, body, status, param, code) in [
        (
            COMPLETIONS,
            json!({}),
            400,
            "model",
            "missing_required_parameter",
        ),
        (
            COMPLETIONS,
            json!({"model": "no", "prompt": "a"}),
            404,
            "model",
            "model_not_found",
        ),
        (
            COMPLETIONS,
            json!({"model": "../etc", "prompt": "a"}),
            404,
            "model",
            "model_not_found",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": ""}),
            400,
            "prompt",
            "",
        ),
        (
            COMPLETIONS,
            json!({"model": "v2", "prompt": ""}),
            400,
            "prompt",
            "",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": [100_000]}),
            400,
            "prompt",
            "",
        ),
        (
            COMPLETIONS,
            json!({"model": "base", "prompt": "a", "max_tokens": 64}),
            400,
            "prompt",
            "context_length_exceeded",
        ),
        (
            chat,
            json!({"model": "base", "messages": [{"role": "user", "content": "a ".repeat(100)}]}),
            400,
            "messages",
            "context_length_exceeded",
        ),
        (
            chat,
            json!({"model": "base", "messages": message, "tools": [{}]}),
            400,
            "tools",
            "unsupported_parameter",
        ),
        (
            chat,
            json!({"model": "base", "messages": []}),
            400,
            "messages",
            "",
        ),
        ("/v1/nothing", json!({}), 404, "", ""),
        ("/v1/models", json!({}), 405, "", ""),
        // Without keys for it, nobody adds adapters.
        (
            "/v1/load_lora_adapter",
            json!({"lora_name": "a", "lora_path": "b"}),
            401,
            "",
            "invalid_api_key",
        ),
    ] {
        let (found, answer) = server.post(path, &body);
        let error = &answer["error"];
        let text = |key: &str| error[key].as_str().unwrap_or_default();
        assert_eq!(
            (found, text("param"), text("code")),
            (status, param, code),
            "{path} {body}: {answer}"
        );
        assert!(
            !text("message").is_empty() && !text("type").is_empty(),
            "{answer}"
        );
    }
    // Virtual tokens predict a first token by themselves.
    server.answer(
        COMPLETIONS,
        &json!({"model": "prompt", "prompt": "", "max_tokens": 1}),
    );
    // A default is cut to what there is room for, and everything up to the last place is used.
    let ids: Vec<u32> = (0..60).collect();
    let answer = server.answer(
        COMPLETIONS,
        &json!({"model": "base", "prompt": ids, "ignore_eos": true}),
    );
    assert_eq!(answer["usage"]["completion_tokens"], 4);

    let json = "Host: localhost\r\nContent-Type: application/json\r\n";
    let good = r#"{"model": "base", "prompt": "a", "max_tokens": 1}"#;
    let post = "POST /v1/completions";
    let long = format!("Host: localhost\r\nX-Long: {}\r\n", "x".repeat(200_000));
    for (bytes, expected) in [
        (request(post, json, good), 200),
        (request(post, json, "{"), 400),
        (request(post, json, "\u{0}"), 400),
        (request(post, json, &"[".repeat(100_000)), 400),
        (request(post, "Host: localhost\r\n", good), 415),
        (
            request(
                post,
                "Host: localhost\r\nContent-Type: text/plain\r\n",
                good,
            ),
            415,
        ),
        (request(post, json, &" ".repeat(3 << 20)), 413),
        (request("DELETE /health", "Host: localhost\r\n", ""), 405),
        (
            request("GET /../../etc/passwd", "Host: localhost\r\n", ""),
            404,
        ),
        (
            request("GET /v1/models/%00%ff", "Host: localhost\r\n", ""),
            404,
        ),
        (request("GET /health", &long, ""), 431),
        (b"nonsense\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), 400),
    ] {
        let answer = server.raw(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert_eq!(status(&answer), expected, "{shown}: {answer}");
    }
    // A client that says nothing more is not waited for by others.
    let mut slow = server.connect();
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
        .unwrap();
    assert_eq!(server.get("/health").0, 200);
    // Nothing of all that is left.
    assert_eq!(
        server.figure("requests_running") + server.figure("requests_waiting"),
        0.0
    );
}

#[test]
fn pages_and_names_from_elsewhere_are_refused() {
    let server = Server::of_all(&[]);
    for (host, origin, expected) in [
        ("localhost", "", 200),
        ("evil.example", "", 403),
        ("localhost", "Origin: http://evil.example\r\n", 403),
        ("localhost", "Origin: null\r\n", 403),
        ("localhost", "Origin: http://localhost:3000\r\n", 200),
    ] {
        let header = format!("Host: {host}\r\n{origin}");
        let answer = server.raw(&request("GET /v1/models", &header, ""));
        assert_eq!(status(&answer), expected, "{host} {origin}");
        assert!(
            !answer.to_lowercase().contains("access-control"),
            "{answer}"
        );
    }
}

#[test]
fn keys_let_requests_in_and_administrators_change_adapters() {
    let files = tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).unwrap();
        super::super::text(&path).to_owned()
    };
    let (api, admin) = (
        file("api", "# ours\nsecret\nother\n"),
        file("admin", "boss\n"),
    );
    let server = Server::start(&[
        "--model",
        &model_path(),
        "--api-key-file",
        &api,
        "--admin-key-file",
        &admin,
    ]);
    let get = |path: &str, key: &str| {
        let request = ureq::get(&server.url(path)).set("Authorization", key);
        read(request.call()).0
    };
    for (key, expected) in [
        ("Bearer secret", 200),
        ("Bearer other", 200),
        ("Bearer boss", 200),
        ("Bearer secre", 401),
        ("Bearer # ours", 401),
        ("secret", 401),
        ("Basic secret", 401),
    ] {
        assert_eq!(get("/v1/models", key), expected, "{key}");
        assert_eq!(get("/metrics", key), expected, "{key}");
    }
    // The page has a field for the key.
    for path in ["/health", "/", "/page.css", "/page.js"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    assert_eq!(server.get("/v1/models").0, 401);
    let page = ureq::get(&server.url("/")).call().unwrap();
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");

    let post = |path: &str, key: &str, body: Value| {
        let request = ureq::post(&server.url(path)).set("Authorization", &format!("Bearer {key}"));
        let (status, text) = read(request.send_json(body));
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let completion =
        || json!({"model": "new", "prompt": "the cat", "max_tokens": 5, "temperature": 0});
    let load = |name: &str, path: &str| json!({"lora_name": name, "lora_path": path});
    let prompt = folder("tied_gqa-prompt-tuning-random");
    assert_eq!(
        post("/v1/load_lora_adapter", "secret", load("new", &prompt)).0,
        401
    );
    assert_eq!(post(COMPLETIONS, "secret", completion()).0, 404);
    let other = folder("untied_mha-prompt-tuning-random");
    for (name, path, param) in [
        ("new", "/no/such/folder", "lora_path"),
        ("new", other.as_str(), "lora_path"),
        ("base", prompt.as_str(), "lora_name"),
        ("", prompt.as_str(), "lora_name"),
    ] {
        let (status, answer) = post("/v1/load_lora_adapter", "boss", load(name, path));
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &param.into()),
            "{answer}"
        );
    }
    let (status, answer) = post("/v1/load_lora_adapter", "boss", load("new", &prompt));
    assert_eq!((status, &answer["id"]), (200, &"new".into()), "{answer}");
    assert_eq!(
        post("/v1/load_lora_adapter", "boss", load("new", &prompt)).0,
        400
    );
    let (status, answer) = post(COMPLETIONS, "secret", completion());
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].clone();
    // It is the adapter that a server starts with.
    let all = Server::of_all(&[]);
    let mut request = completion();
    request["model"] = "prompt".into();
    assert_eq!(
        all.answer(COMPLETIONS, &request)["choices"][0]["text"],
        text
    );
    let unload = || json!({"lora_name": "new"});
    assert_eq!(post("/v1/unload_lora_adapter", "boss", unload()).0, 200);
    assert_eq!(post(COMPLETIONS, "secret", completion()).0, 404);
    assert_eq!(post("/v1/unload_lora_adapter", "boss", unload()).0, 404);
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_read() {
    let files = tempdir().unwrap();
    let empty = files.path().join("keys");
    fs::write(&empty, "# none\n").unwrap();
    let model = model_path();
    let prompt = folder("tied_gqa-prompt-tuning-random");
    let twice = format!("a={prompt}");
    let foreign = format!("a={}", folder("untied_mha-bitfit"));
    for (args, said) in [
        (&["--host", "0.0.0.0"][..], "--api-key-file"),
        (&["--host", "no such host"], "--host no such host"),
        (&["--api-key-file", text(&empty)], "no key"),
        (&["--api-key-file", "/no/such/file"], "/no/such/file"),
        (
            &["--adapter", &twice, "--adapter", &twice],
            "two of that name",
        ),
        (&["--adapter", "a=/no/such/folder"], "/no/such/folder"),
        (&["--adapter", &foreign], "untied_mha-bitfit"),
        (&["--max-context", "100000"], "--max-context is 100000"),
        (
            &["--adapter", &twice, "--max-context", "4"],
            "virtual tokens",
        ),
    ] {
        let mut command = burn_peft(&["serve", "--port", "0", "--model", &model]);
        let line = refused(command.args(args));
        assert!(line.contains(said), "{args:?}: {line}");
    }
    let server = Server::of_all(&[]);
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let mut command = burn_peft(&["serve", "--port", port, "--model", &model]);
    assert!(refused(&mut command).contains(port));
    for name in ["base=x", "=x", "a b=x", "a"] {
        let output = burn_peft(&["serve", "--adapter", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}
