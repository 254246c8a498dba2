//! What the server says, whole and streamed, alone and in company.

use std::thread;

use serde_json::{Value, json};

use super::{
    super::{burn_peft, fixture, lines, model_path, succeed, text},
    client::{ADAPTERS, Server, folder},
};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// What `generate` says with these arguments, on the fixture model with an adapter.
fn generated(adapter: Option<&str>, prompt: &str, more: &[&str]) -> String {
    let model = model_path();
    let args = ["generate", "--json", "--model", &model, "--prompt", prompt];
    let mut command = burn_peft(&args);
    command.args(more);
    if let Some(case) = adapter {
        command.args(["--adapter", &folder(case)]);
    }
    lines(&succeed(&mut command))[0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn completion(model: &str, prompt: &str, tokens: usize) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0})
}

fn texts(answer: &Value) -> Vec<&str> {
    let choices = answer["choices"].as_array().unwrap().iter();
    choices
        .map(|choice| choice["text"].as_str().unwrap())
        .collect()
}

/// The text of a stream's first choice, and why it ended.
fn streamed(events: &[Value]) -> (String, String) {
    let (mut text, mut reason) = (String::new(), String::new());
    for event in events {
        let choice = &event["choices"][0];
        let part = choice["text"]
            .as_str()
            .or(choice["delta"]["content"].as_str());
        text += part.unwrap_or_default();
        reason += choice["finish_reason"].as_str().unwrap_or_default();
    }
    (text, reason)
}

#[test]
fn answers_are_those_of_generate_whole_and_streamed() {
    let server = Server::of_all(&[]);
    let (prompt, tokens) = ("the cat sat on", "14");
    let adapters = ADAPTERS.map(|(name, case)| (name, Some(case)));
    for (name, case) in adapters.into_iter().chain([("base", None)]) {
        let options = ["--max-new-tokens", tokens, "--temperature", "0"];
        let expected = generated(case, prompt, &options);
        let mut request = completion(name, prompt, 14);
        assert_eq!(
            texts(&server.answer(COMPLETIONS, &request)),
            [&expected],
            "{name}"
        );
        request["stream"] = true.into();
        let (text, _) = streamed(&server.events(COMPLETIONS, &request));
        assert_eq!(text, expected, "{name}");

        let expected = generated(case, prompt, &[&options[..], &["--chat"]].concat());
        let messages = json!([{"role": "user", "content": [{"type": "text", "text": prompt}]}]);
        let mut request = json!({"model": name, "messages": messages, "max_completion_tokens": 14, "temperature": 0});
        let answer = server.answer(CHAT, &request);
        assert_eq!(
            answer["choices"][0]["message"]["content"], expected,
            "{name}"
        );
        request["stream"] = true.into();
        let events = server.events(CHAT, &request);
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(streamed(&events).0, expected, "{name}");
    }
    // The base has a name of its own, too.
    let by_name = server.answer(COMPLETIONS, &completion(&model_path(), prompt, 5));
    let bare = server.answer(COMPLETIONS, &completion("base", prompt, 5));
    assert_eq!(by_name["choices"], bare["choices"]);
    // Choices have seeds that follow each other.
    let request = json!({"model": "prefix", "prompt": prompt, "max_tokens": 9, "temperature": 0.8, "top_p": 0.9,
        "seed": 5, "n": 3});
    let expected = ["5", "6", "7"].map(|seed| {
        let options = [
            "--max-new-tokens",
            "9",
            "--temperature",
            "0.8",
            "--top-p",
            "0.9",
        ];
        let adapter = Some("tied_gqa-prefix-tuning");
        generated(adapter, prompt, &[&options[..], &["--seed", seed]].concat())
    });
    assert_eq!(texts(&server.answer(COMPLETIONS, &request)), expected);
}

#[test]
fn an_answer_does_not_depend_on_who_else_asks() {
    let server = Server::of_all(&["--max-batch", "5"]);
    let names = ADAPTERS.map(|(name, _)| name).into_iter().chain(["base"]);
    let requests: Vec<Value> = names
        .flat_map(|name| {
            let prompts = ["the cat", "a dog and a cat sat", "on the mat the"];
            prompts.map(|prompt| completion(name, prompt, 30))
        })
        .collect();
    let alone: Vec<Value> = requests
        .iter()
        .map(|request| server.answer(COMPLETIONS, request)["choices"].clone())
        .collect();
    thread::scope(|scope| {
        let answers: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| server.answer(COMPLETIONS, request)["choices"].clone()))
            .collect();
        for ((request, alone), answer) in requests.iter().zip(&alone).zip(answers) {
            assert_eq!(*alone, answer.join().unwrap(), "{request}");
        }
    });
    // Several prompts in one request are the same ones.
    let prompts = json!({"model": "v2", "prompt": ["the cat", "on the mat the"], "max_tokens": 30, "temperature": 0});
    let together = server.answer(COMPLETIONS, &prompts);
    let apart = [&alone[12], &alone[14]].map(|choices| choices[0]["text"].as_str().unwrap());
    assert_eq!(texts(&together), apart);
}

#[test]
fn a_stop_string_ends_an_answer_in_front_of_it() {
    let server = Server::of_all(&[]);
    let mut request = completion("bitfit", "the cat sat on", 40);
    request["ignore_eos"] = true.into();
    let answer = server.answer(COMPLETIONS, &request);
    let whole = texts(&answer)[0].to_owned();
    // Characters from the middle, wherever tokens end.
    let chars: Vec<char> = whole.chars().collect();
    let middle: String = chars[chars.len() / 2..].iter().take(5).collect();
    let expected = &whole[..whole.find(&middle).unwrap()];
    request["stop"] = json!(["never to be seen", middle]);
    let answer = server.answer(COMPLETIONS, &request);
    assert_eq!(texts(&answer), [expected]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 40);
    request["stream"] = true.into();
    let (text, reason) = streamed(&server.events(COMPLETIONS, &request));
    assert_eq!((text.as_str(), reason.as_str()), (expected, "stop"));
}

#[test]
fn a_prompt_is_scored_as_the_answer_was() {
    let server = Server::of_all(&[]);
    for (name, _) in ADAPTERS {
        let prompt = json!([5, 6, 7, 8]);
        let request = json!({"model": name, "prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 2,
            "ignore_eos": true, "echo": true});
        let answer = server.answer(COMPLETIONS, &request);
        let logprobs = &answer["choices"][0]["logprobs"];
        for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(logprobs[key].as_array().unwrap().len(), 10, "{key}");
        }
        assert_eq!(logprobs["token_logprobs"][0], Value::Null);
        let own =
            |logprobs: &Value, place: usize| logprobs["token_logprobs"][place].as_f64().unwrap();
        for place in 4..10 {
            let top = logprobs["top_logprobs"][place].as_object().unwrap();
            let best = top.values().map(|value| value.as_f64().unwrap());
            // Greedy, so the likeliest is the one.
            assert_eq!(best.fold(f64::NEG_INFINITY, f64::max), own(logprobs, place));
        }
        // The same scores where no token is new.
        let mut request = request;
        request["max_tokens"] = 0.into();
        let answer = server.answer(COMPLETIONS, &request);
        let again = &answer["choices"][0]["logprobs"];
        assert_eq!(again["tokens"].as_array().unwrap().len(), 4, "{name}");
        for place in 1..4 {
            assert!(
                (own(again, place) - own(logprobs, place)).abs() < 1e-4,
                "{name}"
            );
        }
        assert_eq!(answer["usage"]["completion_tokens"], 0);
    }
}

#[test]
fn usage_counts_tokens_and_those_that_were_held() {
    let server = Server::of_all(&[]);
    let prompt: Vec<u32> = (3..43).collect();
    let mut request =
        json!({"model": "prompt", "prompt": prompt, "max_tokens": 5, "n": 2, "ignore_eos": true});
    let usage = |answer: &Value| {
        let usage = &answer["usage"];
        let cached = &usage["prompt_tokens_details"]["cached_tokens"];
        [&usage["prompt_tokens"], &usage["completion_tokens"], cached]
            .map(|count| count.as_u64().unwrap())
    };
    assert_eq!(usage(&server.answer(COMPLETIONS, &request)), [40, 10, 0]);
    // All but the last one, whose state says what comes next.
    assert_eq!(usage(&server.answer(COMPLETIONS, &request)), [40, 10, 39]);
    request["stream"] = true.into();
    request["stream_options"] = json!({"include_usage": true});
    let events = server.events(COMPLETIONS, &request);
    let (last, others) = events.split_last().unwrap();
    assert_eq!((usage(last), &last["choices"]), ([40, 10, 39], &json!([])));
    assert!(others.iter().all(|event| event["usage"].is_null()));
}

#[test]
fn log_probabilities_of_a_chat_have_their_tokens() {
    let server = Server::of_all(&[]);
    let mut request = json!({"model": "base", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 6,
        "temperature": 0, "logprobs": true, "top_logprobs": 3});
    let answer = server.answer(CHAT, &request);
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    for token in content {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
    request["stream"] = true.into();
    let events = server.events(CHAT, &request);
    let scores = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    let tokens: Vec<&Value> = scores.flatten().map(|token| &token["token"]).collect();
    let expected: Vec<&Value> = content.iter().map(|token| &token["token"]).collect();
    assert_eq!(tokens, expected);
}

#[test]
fn a_head_tells_what_predict_tells() {
    let case = |name: &str| {
        text(&fixture::path(&format!(
            "heads/tied_gqa-seq-cls-{name}/adapter"
        )))
        .to_owned()
    };
    let heads = [
        "prompt-tuning",
        "prefix-tuning",
        "beft-qkv",
        "multi-label-prompt-tuning",
        "regression-p-tuning-v2",
    ];
    let adapters = heads.map(|name| format!("{name}={}", case(name)));
    let model = model_path();
    let mut args = vec!["--model", &model];
    args.extend(adapters.iter().flat_map(|adapter| ["--adapter", adapter]));
    let server = Server::start(&args);
    let texts = ["the cat sat on the mat", "a dog"];
    for name in heads {
        let answer = server.answer("/classify", &json!({"model": name, "input": texts}));
        for (found, text) in answer["data"].as_array().unwrap().iter().zip(texts) {
            let args = ["predict", "--json", "--model", &model, "--text", text];
            let mut command = burn_peft(&args);
            let expected = lines(&succeed(command.args(["--adapter", &case(name)]))).remove(0);
            let prediction = &expected["prediction"];
            // A class, several, or numbers.
            match (&found["labels"], &found["values"]) {
                (Value::Null, Value::Null) => assert_eq!(found["label"], *prediction, "{name}"),
                (Value::Null, values) => {
                    let found = values[0].as_f64().unwrap();
                    let number = prediction.as_f64().or(prediction[0].as_f64()).unwrap();
                    assert!((found - number).abs() < 1e-4, "{name}: {found} {number}");
                }
                (labels, _) => assert_eq!(labels, prediction, "{name}"),
            }
            let scores = expected["scores"].as_object().into_iter().flatten();
            for (class, score) in scores {
                let found = found["scores"][class].as_f64().unwrap();
                assert!(
                    (found - score.as_f64().unwrap()).abs() < 1e-4,
                    "{name} {class}"
                );
            }
        }
    }
    // A head writes no text, and the base has no head.
    for (path, body) in [
        (
            COMPLETIONS,
            json!({"model": "prompt-tuning", "prompt": "a"}),
        ),
        ("/classify", json!({"model": "base", "input": "a"})),
    ] {
        let (status, answer) = server.post(path, &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &"model".into()),
            "{answer}"
        );
    }
}
