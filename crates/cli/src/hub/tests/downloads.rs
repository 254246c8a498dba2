//! Files that come in parts, damaged, or not at all.

use super::*;

#[test]
fn a_download_goes_on_where_the_connection_broke() {
    let weights = "0123456789";
    for broken in [Answer::Breaks as fn(_, _, _) -> _, Answer::Stalls] {
        let cache = tempdir().unwrap();
        let hub = Server::new(&[
            (LIST, list(&["config.json", "model.safetensors"])),
            (CONFIG, file("e1", "{}")),
            (WEIGHTS, broken(headers("e2"), b"0123".to_vec(), 10)),
            (WEIGHTS, file("e2", weights)),
        ]);
        let snapshot = Reader::new(&hub, cache.path()).fetch().unwrap();
        let path = snapshot.join("model.safetensors");
        assert_eq!(fs::read_to_string(path).unwrap(), weights);
        let starts: Vec<_> = hub.requests().iter().map(|request| request.start).collect();
        assert_eq!(starts, [None, None, None, Some(4)]);
    }
}

#[test]
fn the_next_try_goes_on_where_the_last_one_stopped() {
    let cache = tempdir().unwrap();
    let files = list(&["config.json"]);
    let begins = Answer::Breaks(headers("e1"), b"0123".to_vec(), 8);
    let hub = Server::new(&[
        (LIST, files.clone()),
        (CONFIG, begins),
        (CONFIG, refusal(503, "")),
    ]);
    let error = Reader::new(&hub, cache.path()).fetch().unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("config.json: "), "{error}");
    assert!(error.contains("status 503, 3 times in a row"), "{error}");
    let hub = Server::new(&[(LIST, files), (CONFIG, file("e1", "01234567"))]);
    let snapshot = Reader::new(&hub, cache.path()).fetch().unwrap();
    assert_eq!(
        fs::read_to_string(snapshot.join("config.json")).unwrap(),
        "01234567"
    );
    assert_eq!(hub.requests().last().unwrap().start, Some(4));
}

#[test]
fn a_part_that_cannot_be_gone_on_with_is_fetched_anew() {
    for (part, answer) in [
        // Longer than the file.
        ("something else", file("e1", "0123")),
        ("01", Answer::WithoutRanges(headers("e1"), b"0123".to_vec())),
    ] {
        let cache = tempdir().unwrap();
        let blobs = cache.path().join("models--owner--model/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("e1.part"), part).unwrap();
        let hub = Server::new(&[(LIST, list(&["config.json"])), (CONFIG, answer)]);
        let snapshot = Reader::new(&hub, cache.path()).fetch().unwrap();
        assert_eq!(
            fs::read_to_string(snapshot.join("config.json")).unwrap(),
            "0123"
        );
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 1);
    }
}

#[test]
fn weights_are_what_their_checksum_says() {
    let sum = digest::digest(&digest::SHA256, b"0123");
    let sum: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let fetch = |body: &str, part: &str| {
        let cache = tempdir().unwrap();
        let blobs = cache.path().join("models--owner--model/blobs");
        fs::create_dir_all(&blobs).unwrap();
        if !part.is_empty() {
            fs::write(blobs.join(format!("{sum}.part")), part).unwrap();
        }
        let headers = format!("x-linked-etag: \"{sum}\"\r\n");
        let hub = Server::new(&[
            (LIST, list(&["config.json", "model.safetensors"])),
            (CONFIG, file("e1", "{}")),
            (WEIGHTS, Answer::Whole(200, headers, body.into())),
        ]);
        let fetched = Reader::new(&hub, cache.path()).fetch();
        let names = fs::read_dir(&blobs).unwrap().count();
        (fetched.map_err(|error| format!("{error:#}")), names)
    };
    assert!(matches!(fetch("0123", ""), (Ok(_), 2)));
    assert!(matches!(fetch("0123", "01"), (Ok(_), 2)));
    for (body, part) in [("9999", ""), ("0123", "99")] {
        let (fetched, names) = fetch(body, part);
        let error = fetched.unwrap_err();
        assert!(error.contains("the hub says") && names == 1, "{error}");
    }
}

#[test]
fn a_body_that_never_ends_is_not_written_without_bound() {
    let endless = error_of(&[
        (LIST, list(&["config.json"])),
        (CONFIG, Answer::Endless(headers("e1"))),
    ]);
    assert!(endless.contains("more than the 65536 bytes"), "{endless}");
    let long = "x".repeat(LONGEST_SMALL as usize + 1);
    let long = error_of(&[(LIST, list(&["config.json"])), (CONFIG, file("e1", &long))]);
    assert!(long.contains("it has 65537 bytes"), "{long}");
    let weights = error_of(&[
        (LIST, list(&["config.json", "model.safetensors"])),
        (CONFIG, file("e1", "{}")),
        (WEIGHTS, Answer::Endless(headers("e2"))),
    ]);
    assert!(weights.contains("does not say how long it is"), "{weights}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_said_so() {
    let cache = tempdir().unwrap();
    let blobs = cache.path().join("models--owner--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    std::os::unix::fs::symlink("/dev/full", blobs.join("e1.part")).unwrap();
    let hub = Server::new(&[(LIST, list(&["config.json"])), (CONFIG, file("e1", "{}"))]);
    let error = Reader::new(&hub, cache.path()).fetch().unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("No space left on device") && error.contains("make room"),
        "{error}"
    );
}
