//! Whether the server may be sent traffic, and what is wrong that does not stand in the way: pure.

/// Which faults count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Every model that ought to serve must, also one that has just come.
    pub(crate) strict: bool,
    /// A server whose repository has no model is ready from the start.
    pub(crate) allow_empty: bool,
}

/// What readiness has to know of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) serves: bool,
    /// It is in the repository, and nobody has unloaded it.
    pub(crate) is_expected: bool,
    /// Its loads have ended, one way or the other, since it came.
    pub(crate) is_tried: bool,
    /// It has served, under this server or the one before it, and nobody has taken it away since.
    pub(crate) has_served: bool,
    /// Something that ought to serve of it cannot.
    pub(crate) is_at_fault: bool,
    /// Why nothing of it serves, or what is at fault.
    pub(crate) why: String,
}

/// What is known between two judgements.
#[derive(Debug)]
pub(crate) struct Gate {
    rule: Rule,
    /// It was ready once: from now on only what has served counts.
    has_started: bool,
    /// Nothing of the start is waited for any more.
    is_start_over: bool,
}

/// What probes are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What stands in the way; ready means that nothing does.
    pub(crate) reasons: Vec<String>,
    /// What is wrong beside that.
    pub(crate) failing: Vec<String>,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new(rule: Rule) -> Gate {
        Gate { rule, has_started: false, is_start_over: false }
    }

    /// Models that have not been tried by now are not waited for: their files are written to without end.
    pub(crate) fn end_start(&mut self) {
        self.is_start_over = true;
    }

    pub(crate) fn has_started(&self) -> bool {
        self.has_started
    }

    /// Judges models by name, and routes that ought to serve and cannot.
    pub(crate) fn judge<'a>(
        &mut self,
        models: impl Iterator<Item = (&'a str, &'a Standing)>,
        routes: &[String],
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let (mut has_models, mut serves, mut is_expected) = (false, false, false);
        for (name, standing) in models {
            has_models = true;
            serves |= standing.serves;
            is_expected |= standing.is_expected;
            let told = || format!("model '{name}': {}", standing.why);
            if standing.serves {
                verdict.failing.extend(standing.is_at_fault.then(told));
            } else if standing.is_expected {
                if self.stands_in_the_way(standing) {
                    verdict.reasons.push(told());
                } else if standing.is_at_fault {
                    verdict.failing.push(told());
                }
            }
        }
        verdict.reasons.extend_from_slice(routes);
        if !self.has_started {
            if !has_models && !self.rule.allow_empty {
                let text = "the model repository is empty; --allow-empty-repository counts that as ready";
                verdict.reasons.push(text.into());
            }
            // All replicas of a new installation would be sent traffic that none can answer.
            if is_expected && !serves && verdict.reasons.is_empty() {
                verdict.reasons.append(&mut verdict.failing);
                if verdict.reasons.is_empty() {
                    verdict.reasons.push("none of the models serves".into());
                }
            }
            self.has_started = verdict.reasons.is_empty();
        }
        verdict
    }

    /// Whether a model that ought to serve and does not keeps the server from being ready.
    fn stands_in_the_way(&self, standing: &Standing) -> bool {
        let is_awaited = !self.has_started && !self.is_start_over && !standing.is_tried;
        self.rule.strict || standing.has_served || is_awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving() -> Standing {
        Standing { serves: true, is_expected: true, is_tried: true, has_served: true, ..Standing::default() }
    }

    fn loading() -> Standing {
        Standing { is_expected: true, why: "it is being loaded".into(), ..Standing::default() }
    }

    fn broken() -> Standing {
        let why = "the file is damaged".into();
        Standing { is_expected: true, is_tried: true, is_at_fault: true, why, ..Standing::default() }
    }

    fn stopped() -> Standing {
        Standing { has_served: true, ..broken() }
    }

    fn unloaded() -> Standing {
        Standing { is_tried: true, why: "it is not loaded".into(), ..Standing::default() }
    }

    fn gate(strict: bool, allow_empty: bool) -> Gate {
        Gate::new(Rule { strict, allow_empty })
    }

    /// `ready`, or the first letters of what is not, and then of what fails.
    fn judge(gate: &mut Gate, models: &[(&str, Standing)]) -> String {
        let verdict = gate.judge(models.iter().map(|(name, standing)| (*name, standing)), &[]);
        let names = |lines: &[String]| {
            let name = |line: &String| line.split('\'').nth(1).unwrap_or(line).to_owned();
            lines.iter().map(name).collect::<Vec<_>>().join(",")
        };
        let state = if verdict.reasons.is_empty() { "ready" } else { "not ready" };
        format!("{state} [{}] failing [{}]", names(&verdict.reasons), names(&verdict.failing))
    }

    #[test]
    fn the_start_waits_until_everything_has_been_tried() {
        let mut gate = gate(false, false);
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", loading())]), "not ready [b] failing []");
        assert_eq!(judge(&mut gate, &[("a", loading()), ("b", broken())]), "not ready [a] failing [b]");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", broken())]), "ready [] failing [b]");
    }

    #[test]
    fn the_start_waits_for_what_served_before() {
        let mut gate = gate(false, false);
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", stopped())]), "not ready [b] failing []");
        gate.end_start();
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", stopped())]), "not ready [b] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving())]), "ready [] failing []");
    }

    #[test]
    fn files_that_are_written_to_without_end_do_not_hold_the_start_up() {
        let mut gate = gate(false, false);
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", loading())]), "not ready [b] failing []");
        gate.end_start();
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", loading())]), "ready [] failing []");
    }

    #[test]
    fn a_start_at_which_nothing_serves_is_none() {
        let mut one = gate(false, false);
        assert_eq!(judge(&mut one, &[("a", broken())]), "not ready [a] failing []");
        assert_eq!(judge(&mut one, &[("a", serving())]), "ready [] failing []");
        let mut explicit = gate(false, false);
        assert_eq!(judge(&mut explicit, &[("a", unloaded())]), "ready [] failing []");
    }

    #[test]
    fn what_comes_later_stands_in_nobodys_way() {
        let mut gate = gate(false, false);
        assert_eq!(judge(&mut gate, &[("a", serving())]), "ready [] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", loading())]), "ready [] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", broken())]), "ready [] failing [b]");
        let half = Standing { is_at_fault: true, ..serving() };
        assert_eq!(judge(&mut gate, &[("a", half), ("b", broken())]), "ready [] failing [a,b]");
        assert_eq!(judge(&mut gate, &[("a", stopped()), ("b", serving())]), "not ready [a] failing []");
        assert_eq!(judge(&mut gate, &[("a", unloaded()), ("b", serving())]), "ready [] failing []");
        assert_eq!(judge(&mut gate, &[]), "ready [] failing []", "emptiness is a matter of the start");
    }

    #[test]
    fn a_strict_server_is_ready_while_every_model_serves() {
        let mut gate = gate(true, false);
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", broken())]), "not ready [b] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("b", unloaded())]), "ready [] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("c", loading())]), "not ready [c] failing []");
        assert_eq!(judge(&mut gate, &[("a", serving()), ("c", broken())]), "not ready [c] failing []");
    }

    #[test]
    fn an_empty_repository_is_no_start_unless_it_is_allowed() {
        assert!(judge(&mut gate(false, false), &[]).starts_with("not ready [the model repository is empty"));
        assert!(judge(&mut gate(true, false), &[]).starts_with("not ready"));
        assert_eq!(judge(&mut gate(false, true), &[]), "ready [] failing []");
    }

    #[test]
    fn a_route_that_cannot_serve_stands_in_the_way() {
        let mut gate = gate(false, true);
        let routes = ["route 'split': arm 'a' names an unknown model".to_owned()];
        assert_eq!(gate.judge([].into_iter(), &routes).reasons, routes);
        assert!(!gate.has_started());
        assert!(gate.judge([].into_iter(), &[]).reasons.is_empty());
        assert!(gate.has_started());
    }
}
