//! Whether a route can be: what its names, its weights and its arms say.

use std::collections::BTreeSet;

use super::canary::check_canary;
use super::winner::check_rollout;
use super::{Arm, Policy, Route, Shadow, Weight, weight};
use crate::request::VersionSelector;

/// More is a typing error, and each costs every request of the route some nanoseconds.
const ARMS_MAX: usize = 32;

/// Each has a thread and perhaps a session of its own.
const SHADOWS_MAX: usize = 8;

/// Checks one route among others. `is_known` says whether the repository has what an arm names, and if not, why.
///
/// # Errors
/// The text names the route, and says what was expected and what came.
pub(crate) fn check(
    route: &Route,
    is_route: &dyn Fn(&str) -> bool,
    is_model: &dyn Fn(&str) -> bool,
    is_known: &dyn Fn(&Arm) -> Result<(), String>,
) -> Result<(), String> {
    let of_route = |why: String| format!("route '{}': {why}", route.name);
    if is_model(&route.name) {
        return Err(of_route("a model of the repository has this name: give the route another one".into()));
    }
    if route.arms.is_empty() || route.arms.len() > ARMS_MAX {
        return Err(of_route(format!("has {} arms: expected 1 to {ARMS_MAX}", route.arms.len())));
    }
    let mut names = BTreeSet::new();
    for arm in &route.arms {
        let of_arm = |why: String| of_route(format!("arm '{}' {why}", arm.name));
        if arm.name.is_empty() || arm.name.contains(|letter: char| letter.is_control()) {
            return Err(of_arm("is not a name: expected some letters".into()));
        }
        if !names.insert(&arm.name) {
            return Err(of_arm("is there twice: give each arm a name of its own".into()));
        }
        if is_route(&arm.model) {
            return Err(of_arm(format!(
                "names the route '{}': routes cannot be nested; name its models instead",
                arm.model
            )));
        }
        is_known(arm).map_err(of_arm)?;
    }
    check_shadows(route, is_route, is_known).map_err(of_route)?;
    check_canary(route)
        .and_then(|()| check_rollout(route))
        .and_then(|()| check_weights(route))
        .map_err(of_route)
}

fn check_shadows(
    route: &Route,
    is_route: &dyn Fn(&str) -> bool,
    is_known: &dyn Fn(&Arm) -> Result<(), String>,
) -> Result<(), String> {
    if route.shadows.len() > SHADOWS_MAX {
        return Err(format!("has {} shadows: expected {SHADOWS_MAX} at most", route.shadows.len()));
    }
    let mut names = BTreeSet::new();
    for Shadow { target, tolerance, .. } in &route.shadows {
        let of_shadow = |why: String| format!("shadow '{}' {why}", target.name);
        if target.name.is_empty() || target.name.contains(|letter: char| letter.is_control()) {
            return Err(of_shadow("is not a name: expected some letters".into()));
        }
        if !names.insert(&target.name) {
            return Err(of_shadow("is there twice: give each shadow a name of its own".into()));
        }
        if [tolerance.absolute, tolerance.relative].iter().any(|bound| !bound.is_finite() || *bound < 0.0) {
            return Err(of_shadow(format!("has the tolerance {tolerance}: expected numbers from 0 on")));
        }
        if is_route(&target.model) {
            return Err(of_shadow(format!(
                "names the route '{}': a shadow is a model; name one of its models instead",
                target.model
            )));
        }
        is_known(target).map_err(of_shadow)?;
    }
    Ok(())
}

fn check_weights(route: &Route) -> Result<(), String> {
    let sum = weight::sum(route.arms.iter().map(|arm| arm.weight));
    match route.policy {
        Policy::Split if sum != Weight::ALL => {
            let terms: Vec<String> =
                route.arms.iter().map(|arm| format!("{} ({})", arm.weight, arm.name)).collect();
            Err(format!("the weights add up to {sum}, expected 100: {}", terms.join(" + ")))
        }
        Policy::Fallback if sum != Weight::default() => {
            Err("has weights: with policy fallback the order of the arms counts alone, leave them out".into())
        }
        Policy::Bandit(_) if sum != Weight::default() => {
            Err("has weights: with policy bandit they follow from rewards, leave them out".into())
        }
        Policy::Split | Policy::Canary | Policy::Fallback | Policy::Bandit(_) => Ok(()),
    }
}

/// What is asked of a route itself.
///
/// # Errors
/// A version: which one answers is the route's to choose.
pub(crate) fn check_version(route: &Route, version: &VersionSelector) -> Result<(), String> {
    let asked = match version {
        VersionSelector::Default => return Ok(()),
        VersionSelector::Number(version) => version.to_string(),
        VersionSelector::Label(label) => label.clone(),
    };
    let arms: Vec<String> = route.arms.iter().map(Arm::target).collect();
    Err(format!(
        "'{}' is a route and has no version '{asked}': ask for it without a version, or ask one of {}",
        route.name,
        arms.join(", ")
    ))
}
