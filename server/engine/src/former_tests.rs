//! Tests of the former: a line of input, a line of expectation.

use expect_test::expect;

use super::script::check;

#[test]
fn a_free_worker_takes_what_is_there() {
    check(
        "| poll, a, poll, b, take, poll",
        expect![[r#"
        idle
        run
        drained ab
        idle"#]],
    );
}

#[test]
fn rows_are_counted_and_requests_stay_whole() {
    check(
        "max=4 | a*2, b, c*3, d, take, take",
        expect![[r#"
        full ab
        full cd"#]],
    );
    check(
        "max=4 | a*4, b, take, take",
        expect![[r#"
        full a
        drained b"#]],
    );
}

#[test]
fn shapes_do_not_block_each_other() {
    check(
        "| a, b/7, c, d/7, take, take",
        expect![[r#"
        shape ac
        drained bd"#]],
    );
    check(
        "max=2 delay=5ms | a, 1ms, b/7, 2ms, c/7, poll, take, poll",
        expect![[r#"
        run
        full bc
        wait until 5ms"#]],
    );
}

#[test]
fn a_delay_waits_for_company_and_no_longer() {
    check(
        "max=2 delay=5ms | a, 1ms, poll, b, poll, take",
        expect![[r#"
        wait until 5ms
        run
        full ab"#]],
    );
    check(
        "max=4 delay=5ms | a, 5ms, poll, take",
        expect![[r#"
        run
        delay a"#]],
    );
    check(
        "max=4 delay=5ms | a, close, poll, take, b, poll",
        expect![[r#"
        run
        closing a
        b refused Closed
        idle"#]],
    );
}

#[test]
fn the_late_and_the_gone_are_not_run() {
    check(
        "| a!5, b, c-, d, 5ms, poll, take, poll",
        expect![[r#"
        run
        drained bd dropped ac
        idle"#]],
    );
    check(
        "| a!5, 9ms, poll, take",
        expect![[r#"
        run
        drained  dropped a"#]],
    );
    check(
        "max=2 | a!5, b, c, d, 6ms, take, take",
        expect![[r#"
        full bc dropped a
        drained d"#]],
    );
}

#[test]
fn bounds_refuse_and_name_what_waits() {
    check(
        "max=2 rows=3 | a*2, b, c, take, c, take",
        expect![[r#"
        c refused Rows { waiting: 3 }
        full a
        full bc"#]],
    );
    check("bytes=25 | a, b, c", expect!["c refused Bytes { waiting: 20 }"]);
}

#[test]
fn the_most_urgent_go_first() {
    check(
        "max=2 | a, b!50, c!20, d!30, take, take",
        expect![[r#"
        full cd
        full ba"#]],
    );
    check(
        "max=2 | a!20/7, b!10/8, c!30/8, take, take",
        expect![[r#"
        full bc
        drained a"#]],
    );
    // Without a deadline, a row waits no longer than one whose deadline was a second after its arrival.
    check(
        "max=1 | a, 900ms, b!950, c!1100, d, take, take, take, take",
        expect![[r#"
        full b
        full a
        full c
        full d"#]],
    );
}

#[test]
fn priority_goes_before_deadline() {
    check(
        "max=2 | a^2!10, b^2!20, c^1, d^1!90, take, take",
        expect![[r#"
        full dc
        full ab"#]],
    );
    check(
        "max=3 | a^3, b^2, c^1, d^1, take, take",
        expect![[r#"
        full cdb
        drained a"#]],
    );
}

#[test]
fn nobody_is_overlooked_for_ever() {
    let busy = "b^1, c^1, take, ".repeat(8);
    let script = format!("max=2 | a^2, 999ms, {busy} 1000ms, {busy} take");
    check(
        &script,
        expect![[r#"
        full bc
        full bc
        full bc
        full bc
        full bc
        full bc
        full bc
        full bc
        full ab
        full cb
        full cb
        full cb
        full cb
        full cb
        full cb
        full cb
        drained c"#]],
    );
}

#[test]
fn a_batch_keeps_its_tightest_deadline() {
    check(
        "cost=10,12,16 | a!15, b!90, c!90, d!90, poll, take, take",
        expect![[r#"
        run
        deadline abc
        enough d"#]],
    );
    check("cost=10,12,16 | a!90, b!90, c!12^1, d!90, take", expect!["deadline ca"]);
}

#[test]
fn what_cannot_be_in_time_any_more_is_dropped() {
    check("cost=10,12,16 | a!15, b!90, 6ms, take", expect!["drained b dropped a"]);
    check("cost=10,12,16 | a*4!16, b!40, 1ms, take", expect!["drained b dropped a"]);
    check("| a<5, b<9, 5ms, take", expect!["drained b dropped a"]);
}

#[test]
fn heads_that_would_spoil_the_rest_are_dropped() {
    // 130 rows a second have come lately. Batches of one row every 10 ms do not keep up with that, and after one the
    // others would have to run one by one too.
    check(
        "cost=10,12,16 | a!11, b*4!21, c*4!21, d*4!21, take",
        expect![[r#"
        c refused Late { by: 15ms }
        d refused Late { by: 15ms }
        full b dropped a"#]],
    );
    // The others can wait.
    check("cost=10,12,16 | a!11, b*4!60, c*4!60, d*4!60, take", expect!["full a"]);
    check("cost=10,12,16 | a!11, b*4, c*4, d*4, take", expect!["full a"]);
    // There are too few others for a larger batch.
    check(
        "cost=10,12,16 | x*4, y*4, z*4, take, take, take, done, a!11, b!21, take",
        expect![[r#"
        full x
        full y
        full z
        deadline a"#]],
    );
    // Batching gains nothing, so small batches are as good.
    check("cost=10,20,40 | a!11, b!22, c!33, d!44, take", expect!["enough a"]);
    // Few rows come.
    check("cost=10,12,16 | a!11, b*4!21, take", expect!["full a"]);
}

#[test]
fn batches_are_no_larger_than_pays() {
    check(
        "cost=10,20,40 | a, b, c, d, take, take",
        expect![[r#"
        enough a
        enough b"#]],
    );
    check("cost=10,11,13 | a, b, c, d, take", expect!["full abcd"]);
    // Two free workers share what would take one of them twice as long.
    check(
        "cost=10,18,30 workers=2 | a, b, c, d, take, take 1",
        expect![[r#"
        enough a
        enough b"#]],
    );
    // What arrives faster than small batches can run is batched as well as it can be.
    let many = (0..40).map(|_| "x").collect::<Vec<_>>().join(", ");
    check(&format!("cost=10,20,39 | {many}, take"), expect!["full xxxx"]);
}

#[test]
fn waiting_for_one_more_must_pay() {
    // The machine is idle.
    check("cost=10,11,13 workers=2 | a, poll", expect!["run"]);
    // A row has come every 2 ms for a while, and the other worker is busy.
    let steady: String = (1..=200).map(|turn| format!("{}ms, x, serve, ", 2 * turn)).collect();
    let steady = steady + "402ms, a, take 1, 403ms";
    // One more would save 9 ms.
    check(
        &format!("cost=10,11,13 workers=2 | {steady}, b, poll, c, poll, d, poll, e, poll, take"),
        expect![[r#"
            drained a
            wait until 412ms
            wait until 412ms
            wait until 412ms
            run
            full bcde"#]],
    );
    check(
        &format!("cost=10,11,13 workers=2 | {steady}, b, 412ms, poll, take"),
        expect![[r#"
        drained a
        run
        drained b"#]],
    );
    check(
        &format!("cost=10,11,13 workers=2 | {steady}, b, done 1, poll"),
        expect![[r#"
        drained a
        run"#]],
    );
    // A deadline does not wait beyond its last chance in the batch of those that will have come by then.
    check(
        &format!("cost=10,11,13 workers=2 | {steady}, b!420, poll"),
        expect![[r#"
        drained a
        wait until 407ms"#]],
    );
    // Rows cost what they cost.
    check(
        &format!("cost=10,20,40 workers=2 | {steady}, b, poll"),
        expect![[r#"
        enough a
        run"#]],
    );
}

#[test]
fn preferred_sizes_close_a_batch() {
    check(
        "max=8 prefer=2,4 delay=5ms | a, poll, b, poll, c, take, poll",
        expect![[r#"
        wait until 5ms
        run
        preferred ab
        wait until 5ms"#]],
    );
    check(
        "max=8 prefer=2,4 delay=5ms | a, b, c, d, e, take, 5ms, poll, take",
        expect![[r#"
        preferred abcd
        run
        delay e"#]],
    );
    check(
        "max=8 prefer=4 delay=5ms | a, b, c, poll, 5ms, poll, d, e, take",
        expect![[r#"
        wait until 5ms
        run
        delay abcde"#]],
    );
    check(
        "max=8 prefer=4 delay=0ms | a, b, c, poll, take",
        expect![[r#"
        run
        drained abc"#]],
    );
}

#[test]
fn a_timeout_may_delay_instead_of_refusing() {
    check(
        "max=2 | a>5, b>9, c, d, 5ms, take, take",
        expect![[r#"
        full bc
        full da"#]],
    );
    check(
        "max=1 | a^1>5, b^2, c^1, 5ms, take, take, take",
        expect![[r#"
        full c
        full a
        full b"#]],
    );
    check(
        "max=2 | a>5, drop a, 5ms, b>6, take",
        expect![[r#"
        a taken back
        drained b"#]],
    );
}

#[test]
fn levels_bound_their_requests() {
    check(
        "requests=2,1 | a^1, b^1, c^1, d^2, e^2, take, c^1",
        expect![[r#"
        c refused Requests { waiting: 2, most: 2 }
        e refused Requests { waiting: 1, most: 1 }
        drained abd"#]],
    );
}

#[test]
fn who_leaves_is_forgotten() {
    check(
        "max=2 rows=3 | a, b, c, d, drop b, drop b, d, take, take, drop c, poll",
        expect![[r#"
        d refused Rows { waiting: 3 }
        b taken back
        b has left
        full ac
        drained d
        c has left
        idle"#]],
    );
    check(
        "max=2 | a/7, b/8, drop a, poll, take, poll",
        expect![[r#"
        a taken back
        run
        drained b
        idle"#]],
    );
}

#[test]
fn eager_means_first_come_first_served() {
    check("eager=1 cost=10,20,40 | a^2, b!15, c^1!12, d, take", expect!["full bcda"]);
    check("eager=1 cost=10,20,40 | a!5, b!15, 6ms, take", expect!["drained b dropped a"]);
}

#[test]
fn who_cannot_be_in_time_is_refused() {
    // Nothing waits: only its own run counts, and no wait would help.
    check(
        "cost=10,12,16 | a!9, b!10, poll",
        expect![[r#"
        a refused Hopeless
        run"#]],
    );
    // A run of 10 ms has 6 ms to go.
    check(
        "cost=10,12,16 | a, take, 4ms, b!19, c!20",
        expect![[r#"
        enough a
        b refused Late { by: 1ms }"#]],
    );
    // What is due before it goes first, at 4 ms a row, and what is due later does not.
    check(
        "cost=10,12,16 | a, take, b*4!60, c*4!60, d*4!60, e*4!60, f!40",
        expect![[r#"
        enough a
        e refused Late { by: 14ms }"#]],
    );
    // Two workers share what goes before.
    check(
        "cost=10,12,16 workers=2 | a, take, b, take 1, c*4!60, d*4!60, e*4!60, f*4!60, g*4!60, h*4!60",
        expect![[r#"
            enough a
            enough b
            h refused Late { by: 6ms }"#]],
    );
    // A higher level goes before all of a lower one.
    check(
        "cost=10,12,16 | a, take, b*4^2!30, c*4^2!60, d^1!26, e^2!40",
        expect![[r#"
        enough a
        e refused Late { by: 6ms }"#]],
    );
    // A run that is late is expected to stay late.
    check(
        "cost=10,12,16 | a, take, 30ms, b!59, c!61",
        expect![[r#"
        enough a
        b refused Late { by: 1ms }"#]],
    );
    // Who leaves makes room.
    check(
        "cost=10,12,16 | a*4!16, b*4!20, drop a, b*4!20",
        expect![[r#"
        b refused Late { by: 12ms }
        a taken back"#]],
    );
    // Without a deadline there is nothing to be late for; first come, first served looks at none.
    check("cost=10,12,16 | a, take, 90ms, b", expect!["enough a"]);
    check("eager=1 cost=10,12,16 | a!1, b!1, take", expect!["drained ab"]);
}

#[test]
fn who_was_late_makes_it_harder_for_others() {
    check(
        "cost=10 max=1 | a, take, b!30, 25ms, done, take, c, take, d!45, e!46",
        expect![[r#"
        full a
        drained  dropped b
        full c
        d refused Late { by: 499.999µs }"#]],
    );
}

#[test]
fn the_queue_is_bounded_in_predicted_time() {
    check(
        "cost=10,12,16 time=20ms | a*4, b, c, take, d*4",
        expect![[r#"
        c refused Time { waiting: 20ms }
        full a"#]],
    );
    // A request that takes longer by itself is not turned away for ever.
    check("cost=10,12,16 time=2ms | a*4, b", expect!["b refused Time { waiting: 16ms }"]);
}

#[test]
fn now_and_then_one_that_looks_hopeless_is_let_in() {
    check(
        "cost=10 max=1 | a!5, 99ms, b!104, 100ms, c!105, take, d!106, done, 199ms, e!206, 200ms, f!208, take",
        expect![[r#"
        a refused Hopeless
        b refused Hopeless
        full c
        d refused Hopeless
        e refused Hopeless
        full f"#]],
    );
}
