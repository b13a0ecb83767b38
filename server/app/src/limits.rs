//! How much each tenant may ask: rates and open requests, by tenant and model, before the engine sees a request.

mod bucket;
mod file;
mod limiter;
mod unnamed;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gristmill_engine::error::InferError;
use gristmill_engine::metrics::{Kind, Metric};
use http::{HeaderMap, HeaderName};
use metrics::{Counter, SharedString, Unit};

use self::file::{LimitsFile, TenantLimits};
use self::limiter::{Limiter, Open, Refusal};
use self::unnamed::Unnamed;

/// Longest name of a tenant, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Who sends no name.
const ANONYMOUS: &str = "anonymous";
/// Those without limits of their own, in metrics: their names are the clients' choice.
const OTHER: &str = "other";

pub(crate) const TENANT_REQUESTS: Metric = Metric {
    name: "gristmill_tenant_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["tenant", "outcome"],
    help: "Requests by tenant: admitted, or refused for its rate or its open requests",
};

/// The limits of every tenant, and what each has used of them.
pub struct Limits {
    header: HeaderName,
    start: Instant,
    named: HashMap<String, Arc<Tenant>>,
    unnamed: Unnamed,
}

/// One tenant's limits and use.
struct Tenant {
    limiter: Arc<Limiter>,
    models: HashMap<String, Arc<Limiter>>,
    metrics: Arc<TenantMetrics>,
}

struct TenantMetrics {
    admitted: Counter,
    rate: Counter,
    concurrency: Counter,
}

/// An admitted request; it counts as open until this is dropped.
pub struct Permit {
    _open: Open,
}

// === impl Limits ===

impl Limits {
    /// Reads the file of `--limits`.
    ///
    /// # Errors
    /// The text names the file and the field.
    pub fn read(path: &Path, now: Instant) -> Result<Limits, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Limits::parse(&text, now).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The same from its text.
    ///
    /// # Errors
    /// The text says where the fault is, what was expected and what came.
    pub fn parse(text: &str, now: Instant) -> Result<Limits, String> {
        let LimitsFile { header, tenants_max, default, tenants } = file::parse(text)?;
        let named = tenants.into_iter().map(|(name, limits)| {
            let metrics = Arc::new(TenantMetrics::new(&name));
            (name, Arc::new(Tenant::new(&limits, metrics)))
        });
        let named = named.collect();
        let unnamed = Unnamed::new(default, tenants_max, now);
        Ok(Limits { header, start: now, named, unnamed })
    }

    /// Admits a request of whoever its headers, or its metadata, name.
    ///
    /// # Errors
    /// `Overloaded`, with the time after which it would be admitted; `InvalidInput` for a name that is none.
    pub fn admit(&self, headers: &HeaderMap, model: &str, now: Instant) -> Result<Permit, InferError> {
        let name = self.tenant_name(headers)?;
        let tenant = match self.named.get(name) {
            Some(tenant) => Arc::clone(tenant),
            None => self.unnamed.find(name, now),
        };
        let (limiter, scope) = match tenant.models.get(model) {
            Some(limiter) => (limiter, Some(model)),
            None => (&tenant.limiter, None),
        };
        let elapsed = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        match limiter.admit(elapsed, now) {
            Ok(open) => {
                tenant.metrics.admitted.increment(1);
                Ok(Permit { _open: open })
            }
            Err(refusal) => {
                tenant.metrics.of(&refusal).increment(1);
                Err(refused(name, scope, &refusal))
            }
        }
    }

    fn tenant_name<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, InferError> {
        let Some(value) = headers.get(&self.header) else { return Ok(ANONYMOUS) };
        match value.to_str() {
            Ok("") => Ok(ANONYMOUS),
            Ok(name) if name.len() <= NAME_BYTES_MAX => Ok(name),
            _ => Err(InferError::InvalidInput(format!(
                "header {} must name the tenant in at most {NAME_BYTES_MAX} characters of ASCII",
                self.header
            ))),
        }
    }
}

fn refused(name: &str, model: Option<&str>, refusal: &Refusal) -> InferError {
    let whose = match model {
        Some(model) => format!("tenant '{name}' with model '{model}'"),
        None => format!("tenant '{name}'"),
    };
    let (what, retry_after) = match refusal {
        Refusal::Rate { retry_after } => ("has used up its rate of requests".to_owned(), *retry_after),
        Refusal::Concurrency { open_max, retry_after } => {
            (format!("has {open_max} open requests, which is its limit"), *retry_after)
        }
    };
    let message = format!("{whose} {what}: retry in {} ms", retry_after.as_millis().max(1));
    InferError::Overloaded { message, retry_after }
}

// === impl Tenant ===

impl Tenant {
    fn new(limits: &TenantLimits, metrics: Arc<TenantMetrics>) -> Tenant {
        let models =
            limits.models.iter().map(|(model, limit)| (model.clone(), Arc::new(Limiter::new(*limit))));
        Tenant { limiter: Arc::new(Limiter::new(limits.limit)), models: models.collect(), metrics }
    }

    /// Whether nobody could tell it from a new one.
    fn is_idle(&self, elapsed: u64) -> bool {
        self.limiter.is_idle(elapsed) && self.models.values().all(|limiter| limiter.is_idle(elapsed))
    }
}

// === impl TenantMetrics ===

impl TenantMetrics {
    #[expect(clippy::disallowed_macros, reason = "resolved once, when the file is read")]
    fn new(tenant: &str) -> TenantMetrics {
        let counter = |outcome: &'static str| {
            let tenant = SharedString::from(tenant.to_owned());
            let labels = [("tenant", tenant), ("outcome", SharedString::const_str(outcome))];
            metrics::counter!(TENANT_REQUESTS.name, &labels)
        };
        TenantMetrics {
            admitted: counter("admitted"),
            rate: counter("rate"),
            concurrency: counter("concurrency"),
        }
    }

    fn of(&self, refusal: &Refusal) -> &Counter {
        match refusal {
            Refusal::Rate { .. } => &self.rate,
            Refusal::Concurrency { .. } => &self.concurrency,
        }
    }
}

#[cfg(test)]
mod tests;
