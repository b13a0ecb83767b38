//! A server that is killed while whole routes are replaced has one or the other, and no part of both.

use std::sync::mpsc;

use serde_json::{Value, json};

use super::{Repository, request};

/// Two routes that differ in everything.
fn routes() -> [Value; 2] {
    let arm = |name: &str, version: u64, weight: f64| json!({"name": name, "model": "diabetes", "version": version, "weight": weight});
    let shadow = json!({"name": "next", "model": "diabetes", "version": 2, "percent": 25.0});
    [
        json!({
            "policy": "split", "key": "header", "salt": "one", "shadows": [shadow],
            "arms": [arm("control", 1, 90.0), arm("candidate", 2, 10.0)],
        }),
        json!({
            "policy": "fallback", "key": "parameter:user_id", "salt": "two",
            "arms": [arm("first", 2, 0.0), arm("second", 1, 0.0)],
        }),
    ]
}

#[test]
fn a_route_is_the_old_or_the_new_one_whole() {
    let repository = Repository::new();
    let mut server = repository.serve();
    let shown = routes().map(|route| {
        server.post("/v1/admin/routes/risk", &route);
        server.json(&["show", "risk"])
    });
    assert_ne!(shown[0], shown[1]);
    for changes in [1, 2, 4, 7] {
        let (done, answered) = mpsc::channel();
        let http = server.http.clone();
        let client = std::thread::spawn(move || {
            for which in [0, 1].into_iter().cycle() {
                let body = routes()[which].to_string();
                match request(&http, "POST", "/v1/admin/routes/risk", "", &body) {
                    Ok((200, ..)) => done.send(which).unwrap(),
                    // It was killed; this change may have been made or not.
                    _ => return which,
                }
            }
            unreachable!("the server is killed before")
        });
        let seen: Vec<usize> = answered.iter().take(changes).collect();
        server.kill();
        let tried = client.join().unwrap();
        let told = answered.try_iter().last().unwrap_or(seen[changes - 1]);
        server = repository.serve();
        let found = server.json(&["show", "risk"]);
        assert!(
            found == shown[told] || found == shown[tried],
            "{found} is neither {} nor {}",
            shown[told],
            shown[tried]
        );
        // And it is asked so: only one of the two has this arm.
        let arm = &server.ask("risk", "a key")[0];
        assert!(
            found["arms"].as_array().unwrap().iter().any(|known| known["name"] == **arm),
            "{arm}: {found}"
        );
    }
}
