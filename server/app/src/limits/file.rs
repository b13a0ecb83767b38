//! The file of `--limits` as it is written, and what it means once checked.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bucket::Rate;

/// Where requests name their tenant, unless the file says.
const HEADER_BY_DEFAULT: &str = "x-gristmill-tenant";
/// Tenants without limits of their own that are told apart at a time, unless the file says.
const TENANTS_MAX_BY_DEFAULT: usize = 1024;
/// More is a typing error.
const TENANTS_MAX: usize = 1 << 20;

/// The file, checked.
#[derive(Debug, PartialEq)]
pub(super) struct LimitsFile {
    /// In lower case, as headers are compared.
    pub(super) header: http::HeaderName,
    pub(super) tenants_max: usize,
    pub(super) default: TenantLimits,
    pub(super) tenants: BTreeMap<String, TenantLimits>,
}

/// What one tenant may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TenantLimits {
    pub(super) limit: Limit,
    /// In place of it, for single models.
    pub(super) models: BTreeMap<String, Limit>,
}

/// `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limit {
    pub(super) rate: Option<Rate>,
    /// Requests that may be open at the same time.
    pub(super) concurrent_max: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    header: Option<String>,
    tenants_max: Option<usize>,
    #[serde(default)]
    default: RawTenant,
    #[serde(default)]
    tenants: BTreeMap<String, RawTenant>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTenant {
    requests_per_second: Option<f64>,
    burst: Option<u32>,
    concurrent_max: Option<u32>,
    #[serde(default)]
    models: BTreeMap<String, RawLimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimit {
    requests_per_second: Option<f64>,
    burst: Option<u32>,
    concurrent_max: Option<u32>,
}

/// Reads and checks the file's text.
///
/// # Errors
/// The text says where the fault is, what was expected and what came.
pub(super) fn parse(text: &str) -> Result<LimitsFile, String> {
    let raw: Raw = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let header = raw.header.as_deref().unwrap_or(HEADER_BY_DEFAULT);
    let header = header.parse().map_err(|_invalid| {
        format!("header is \"{header}\": expected the name of a header, such as x-tenant")
    })?;
    let tenants_max = raw.tenants_max.unwrap_or(TENANTS_MAX_BY_DEFAULT);
    if tenants_max > TENANTS_MAX {
        return Err(format!("tenants_max is {tenants_max}: expected 0 to {TENANTS_MAX}"));
    }
    let tenants = raw.tenants.into_iter().map(|(name, raw)| {
        let limits = tenant(&format!("tenants.{name}"), raw)?;
        Ok((name, limits))
    });
    Ok(LimitsFile {
        header,
        tenants_max,
        default: tenant("default", raw.default)?,
        tenants: tenants.collect::<Result<_, String>>()?,
    })
}

fn tenant(field: &str, raw: RawTenant) -> Result<TenantLimits, String> {
    let RawTenant { requests_per_second, burst, concurrent_max, models } = raw;
    let models = models.into_iter().map(|(model, raw)| {
        let limit = limit(&format!("{field}.models.{model}"), &raw)?;
        Ok((model, limit))
    });
    let models = models.collect::<Result<_, String>>()?;
    Ok(TenantLimits {
        limit: limit(field, &RawLimit { requests_per_second, burst, concurrent_max })?,
        models,
    })
}

fn limit(field: &str, raw: &RawLimit) -> Result<Limit, String> {
    let rate = match (raw.requests_per_second, raw.burst) {
        (None, None) => None,
        (None, Some(_)) => return Err(format!("{field}.burst needs {field}.requests_per_second beside it")),
        (Some(rate), _) if !(rate > 0.0 && rate.is_finite()) => {
            return Err(format!("{field}.requests_per_second is {rate}: expected more than 0"));
        }
        (_, Some(0)) => return Err(format!("{field}.burst is 0: expected at least 1")),
        // A second's worth, so that a rate can be reached by clients that send in gusts.
        (Some(rate), burst) => Some(Rate::new(rate, burst.unwrap_or((rate.ceil() as u32).max(1)))),
    };
    if raw.concurrent_max == Some(0) {
        return Err(format!("{field}.concurrent_max is 0: expected at least 1"));
    }
    Ok(Limit { rate, concurrent_max: raw.concurrent_max })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).expect_err("the file is at fault"));
    }

    #[test]
    fn an_empty_file_limits_nobody() {
        let file = parse("").unwrap();
        assert_eq!((file.header.as_str(), file.tenants_max), ("x-gristmill-tenant", 1024));
        assert_eq!((file.default, file.tenants), (TenantLimits::default(), BTreeMap::new()));
    }

    #[test]
    fn everything_can_be_said() {
        let file = parse(
            r#"
            header = "X-Tenant"
            tenants_max = 10
            [default]
            requests_per_second = 2.5
            [tenants.acme]
            requests_per_second = 100
            burst = 20
            concurrent_max = 8
            [tenants.acme.models.digits]
            concurrent_max = 1
            "#,
        )
        .unwrap();
        assert_eq!((file.header.as_str(), file.tenants_max), ("x-tenant", 10));
        assert_eq!(file.default.limit, Limit { rate: Some(Rate::new(2.5, 3)), concurrent_max: None });
        let acme = &file.tenants["acme"];
        assert_eq!(acme.limit, Limit { rate: Some(Rate::new(100.0, 20)), concurrent_max: Some(8) });
        assert_eq!(acme.models["digits"], Limit { rate: None, concurrent_max: Some(1) });
    }

    #[test]
    fn faults_say_what_was_expected() {
        check(
            "[default]\nrequests_per_second = 0",
            expect!["default.requests_per_second is 0: expected more than 0"],
        );
        check(
            "[tenants.a]\nburst = 3",
            expect!["tenants.a.burst needs tenants.a.requests_per_second beside it"],
        );
        check(
            "[tenants.a.models.m]\nrequests_per_second = 1\nburst = 0",
            expect!["tenants.a.models.m.burst is 0: expected at least 1"],
        );
        check("[default]\nconcurrent_max = 0", expect!["default.concurrent_max is 0: expected at least 1"]);
        check(
            "header = \"no header\"",
            expect![[r#"header is "no header": expected the name of a header, such as x-tenant"#]],
        );
        check("tenants_max = 9999999", expect!["tenants_max is 9999999: expected 0 to 1048576"]);
        check(
            "[default]\nrate = 3",
            expect![[r#"
                TOML parse error at line 2, column 1
                  |
                2 | rate = 3
                  | ^^^^
                unknown field `rate`, expected one of `requests_per_second`, `burst`, `concurrent_max`, `models`"#]],
        );
    }
}
