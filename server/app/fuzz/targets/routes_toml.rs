//! Any text as a `routes.toml`: routes that can be are the same when they are written and read again.
#![no_main]

use gristmill::routes_file::{parse, write};
use gristmill_engine::routing::{Policy, Route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let routes = match parse(text) {
        Ok(routes) => routes,
        Err(why) => {
            assert!(!why.is_empty(), "a fault has a text");
            return;
        }
    };
    if routes.iter().all(can_be) {
        let written = write(&routes);
        assert_eq!(parse(&written), Ok(routes), "{written}");
    }
});

/// As far as the engine checks it before it lets a route be written.
fn can_be(route: &Route) -> bool {
    let has_canary = match (route.policy, &route.canary) {
        (Policy::Canary, Some(canary)) => canary.plan.check().is_ok(),
        (_, canary) => canary.is_none(),
    };
    let bounds =
        route.shadows.iter().flat_map(|shadow| [shadow.tolerance.absolute, shadow.tolerance.relative]);
    has_canary && bounds.into_iter().all(f64::is_finite)
}
