//! What the catalog says before it is known what there is.

use super::*;

#[test]
fn a_server_is_not_ready_before_what_it_has_read_is_published() {
    let published = Arc::new(Published::default());
    let mut reconciler = Reconciler::new(Arc::clone(&published), Options::default(), true);
    let is_ready = || published.catalog.load().unready().is_empty();
    assert!(!is_ready());
    reconciler.step(Instant::now());
    assert!(!is_ready(), "nothing has been read");
    reconciler.observe(Desired::default());
    assert!(!is_ready(), "of what was read nothing is published");
    reconciler.step(Instant::now());
    assert!(is_ready(), "the repository is empty, which is allowed");
    reconciler.shut_down();
}
