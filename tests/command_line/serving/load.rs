//! A server with more to do than it can, whose clients come and go.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::{
    super::{burn_peft, lines, refused, succeed},
    client::{ADAPTERS, Server, read, wait_until},
};

const COMPLETIONS: &str = "/v1/completions";

/// A stream that takes a while: a thousand tokens of the built-in model.
fn long() -> Value {
    json!({"model": "base", "prompt": "the", "max_tokens": 1000, "ignore_eos": true, "stream": true})
}

fn short() -> Value {
    json!({"model": "base", "prompt": "the", "max_tokens": 1})
}

#[test]
fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&["--max-batch", "1"]);
    drop(server.begin_stream(&long()));
    // It would not be their turn before the long one has ended.
    server.answer(COMPLETIONS, &short());
    let tokens = server.figure("generated_tokens_total");
    assert!(tokens < 1000.0, "{tokens} tokens for nobody");
    // One that waits leaves, too: of its rows, at most those that ran by then were computed.
    let _running = server.begin_stream(&long());
    let mut body = long();
    body["n"] = 40.into();
    let body = body.to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).unwrap();
    wait_until("requests in the queue", || {
        server.figure("requests_waiting") > 30.0
    });
    drop(stream);
    wait_until("an empty queue", || {
        server.figure("requests_waiting") == 0.0
    });
    let tokens = server.figure("generated_tokens_total");
    assert!(tokens < 10_000.0, "{tokens} tokens for nobody");
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let server = Server::start(&["--max-batch", "1", "--max-queue", "40"]);
    let mut many = long();
    many["n"] = 40.into();
    let running = server.begin_stream(&many);
    let refused = ureq::post(&server.url(COMPLETIONS)).send_json(&many);
    let Err(ureq::Error::Status(429, response)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(response.header("retry-after"), Some("1"));
    let (_, text) = read(Ok(response));
    assert!(text.contains("rate_limit_exceeded"), "{text}");
    drop(running);
    wait_until("an empty queue", || {
        server.figure("requests_waiting") == 0.0
    });
    assert_eq!(server.post(COMPLETIONS, &short()).0, 200);
    // More rows than can ever wait are not a matter of time.
    many["n"] = 41.into();
    let (status, answer) = server.post(COMPLETIONS, &many);
    assert_eq!((status, &answer["error"]["param"]), (400, &"n".into()));
}

#[test]
fn a_request_whose_time_is_up_is_told_so() {
    let server = Server::start(&["--max-batch", "1", "--request-timeout", "1"]);
    let requests: Vec<Value> = (0..40)
        .map(|_| {
            let mut request = long();
            request["stream"] = false.into();
            request
        })
        .collect();
    std::thread::scope(|scope| {
        let answers: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| server.post(COMPLETIONS, request)))
            .collect();
        let answers: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.join().unwrap())
            .collect();
        let late = answers.iter().find(|(status, _)| *status == 504);
        let (_, answer) = late.expect("forty thousand tokens take more than a second");
        assert_eq!(answer["error"]["code"], "timeout");
    });
    assert_eq!(server.post(COMPLETIONS, &short()).0, 200);
}

#[test]
fn a_signal_lets_what_runs_finish_and_refuses_what_comes() {
    let mut server = Server::start(&[]);
    let mut many = long();
    many["n"] = 16.into();
    let mut running = server.begin_stream(&many);
    server.signal("TERM");
    wait_until("refusals", || server.get("/health").0 == 503);
    let (status, answer) = server.post(COMPLETIONS, &short());
    assert_eq!(
        (status, &answer["error"]["type"]),
        (503, &"server_error".into())
    );
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    let ended = rest.matches("\"finish_reason\":\"length\"").count();
    assert_eq!(ended, 16, "{rest}");
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Server::start(&["--max-batch", "1"]);
    // More than is done between two signals.
    let mut many = long();
    many["n"] = 60.into();
    let _running = server.begin_stream(&many);
    server.signal("INT");
    wait_until("refusals", || server.get("/health").0 == 503);
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(130));
}

#[test]
fn a_load_is_measured_by_number_of_models() {
    let mut server = Server::of_all(&[]);
    let url = server.url("/");
    let args = [
        "bench",
        "serve",
        "--json",
        "--url",
        &url,
        "--requests",
        "6",
        "--concurrency",
        "3",
    ];
    let mut command = burn_peft(&args);
    let loads = lines(&succeed(command.args(["--max-tokens", "5"])));
    let models: Vec<_> = loads
        .iter()
        .map(|load| load["models"].as_u64().unwrap())
        .collect();
    assert_eq!(models, [1, 2, 4, ADAPTERS.len() as u64]);
    for load in &loads {
        assert_eq!(load["requests"], 6);
        let rate =
            load["tokens_per_s"].as_f64().unwrap() / load["requests_per_s"].as_f64().unwrap();
        assert!((rate - 5.0).abs() < 1e-9, "{load}");
        assert!(load["first_token_p50_s"].as_f64() <= load["first_token_p90_s"].as_f64());
    }
    assert_eq!(server.figure("generated_tokens_total"), 4.0 * 6.0 * 5.0);
    let line = refused(burn_peft(&args).args(["--models", "none"]));
    assert!(
        line.contains("status 404: there is no model `none`"),
        "{line}"
    );
    let line = refused(burn_peft(&args).args(["--max-tokens", "100000"]));
    assert!(line.contains("status 400"), "{line}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert!(refused(&mut burn_peft(&args)).contains(&server.address));
}
