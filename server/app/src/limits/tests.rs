//! Limits with made-up instants: who is admitted, who waits how long, who is forgotten.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;

/// Slow enough that nothing depends on how long a test takes.
const FILE: &str = r#"
    header = "x-tenant"
    tenants_max = 16
    [default]
    requests_per_second = 0.5
    burst = 1
    [tenants.acme]
    requests_per_second = 1
    burst = 2
    [tenants.acme.models.digits]
    concurrent_max = 1
    [tenants.free]
"#;

fn headers(tenant: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !tenant.is_empty() {
        headers.insert("x-tenant", tenant.parse().unwrap());
    }
    headers
}

/// Requests as `milliseconds tenant model`; each admitted one is done at once.
fn check(requests: &[(u64, &str, &str)], expected: Expect) {
    let start = Instant::now();
    let limits = Limits::parse(FILE, start).unwrap();
    let mut text = String::new();
    for (milliseconds, tenant, model) in requests {
        let now = start + Duration::from_millis(*milliseconds);
        text += &match limits.admit(&headers(tenant), model, now) {
            Ok(_permit) => "admitted\n".to_owned(),
            Err(error) => format!("{error}\n"),
        };
    }
    expected.assert_eq(&text);
}

#[test]
fn each_tenant_has_its_own_rate() {
    check(
        &[
            (0, "acme", "m"),
            (0, "acme", "other"),
            (0, "acme", "m"),
            (0, "somebody", "m"),
            (0, "somebody", "m"),
            (0, "", "m"),
            (500, "anonymous", "m"),
            (1000, "acme", "m"),
            (2000, "somebody", "m"),
        ],
        expect![[r#"
            admitted
            admitted
            tenant 'acme' has used up its rate of requests: retry in 1000 ms
            admitted
            tenant 'somebody' has used up its rate of requests: retry in 2000 ms
            admitted
            tenant 'anonymous' has used up its rate of requests: retry in 1500 ms
            admitted
            admitted
        "#]],
    );
}

#[test]
fn a_models_own_limit_stands_in_place_of_its_tenants() {
    check(
        &[(0, "acme", "m"), (0, "acme", "m"), (0, "acme", "digits"), (0, "acme", "digits"), (0, "acme", "m")],
        expect![[r#"
            admitted
            admitted
            admitted
            admitted
            tenant 'acme' has used up its rate of requests: retry in 1000 ms
        "#]],
    );
}

#[test]
fn a_tenant_without_limits_has_none() {
    let limits = Limits::parse(FILE, Instant::now()).unwrap();
    let now = Instant::now();
    assert!((0..10_000).all(|_| limits.admit(&headers("free"), "m", now).is_ok()));
}

#[test]
fn open_requests_are_counted_until_they_end() {
    let start = Instant::now();
    let limits = Limits::parse(FILE, start).unwrap();
    let open = limits.admit(&headers("acme"), "digits", start).unwrap();
    let Err(InferError::Overloaded { message, retry_after }) =
        limits.admit(&headers("acme"), "digits", start)
    else {
        panic!("one is open");
    };
    expect!["tenant 'acme' with model 'digits' has 1 open requests, which is its limit: retry in 1 ms"]
        .assert_eq(&message);
    assert_eq!(retry_after, Duration::from_millis(1), "nothing is known yet");
    drop(open);
    assert!(limits.admit(&headers("acme"), "digits", start).is_ok());
}

#[test]
fn a_refused_rate_leaves_nothing_open() {
    let file = "[tenants.a]\nrequests_per_second = 1\nburst = 1\nconcurrent_max = 2\nmodels = {}";
    let start = Instant::now();
    let limits = Limits::parse(file, start).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-gristmill-tenant", "a".parse().unwrap());
    let open = limits.admit(&headers, "m", start).unwrap();
    assert!((0..10).all(|_| limits.admit(&headers, "m", start).is_err()));
    let later = start + Duration::from_secs(1);
    assert!(limits.admit(&headers, "m", later).is_ok(), "one of two is open");
    drop(open);
}

#[test]
fn names_are_bounded() {
    let limits = Limits::parse(FILE, Instant::now()).unwrap();
    let admit = |name: &str| limits.admit(&headers(name), "m", Instant::now());
    assert!(admit(&"a".repeat(256)).is_ok());
    let Err(error) = admit(&"a".repeat(257)) else { panic!("the name is too long") };
    expect!["header x-tenant must name the tenant in at most 256 characters of ASCII"]
        .assert_eq(&error.to_string());
}

#[test]
fn only_so_many_are_told_apart_and_the_idle_make_room() {
    let start = Instant::now();
    let limits = Limits::parse(FILE, start).unwrap();
    let mut admitted = 0;
    for number in 0..1000 {
        admitted += usize::from(limits.admit(&headers(&format!("t{number}")), "m", start).is_ok());
    }
    let known = limits.unnamed.known();
    assert!(known <= 16, "{known}");
    assert_eq!(admitted, known + 1, "the crowd shares one bucket");
    // Two seconds fill every bucket; who comes then is told apart again, and the others are forgotten.
    let later = start + Duration::from_secs(2);
    let all_again =
        (0..16).filter(|number| limits.admit(&headers(&format!("new{number}")), "m", later).is_ok());
    assert!(all_again.count() > 1);
    assert!(limits.unnamed.known() <= 16);
}
