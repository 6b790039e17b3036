//! Routing: from a request's host and path to the address of a function. Pure: the same two always give the same
//! address.
//!
//! ```text
//! https://[<environment>.]<tenant>.<base domain>/<rest>          the function `fn`, on an origin of the tenant's own
//! https://<any other host>/t/<tenant>[@<environment>]/<function>[/<rest>]     on the origin that all tenants share
//! ```
//!
//! The environment is a label of its own, because a name may hold any number of hyphens: `acme--staging` is a tenant.

use std::fmt;
use std::str::FromStr;

use crate::name::{EnvironmentName, FunctionName, TenantName};

/// The longest base domain: 253 bytes are the most that a host has, and a tenant's name and a dot come before it.
const BASE_DOMAIN_BYTES_MAX: usize = 253 - 64;

/// The address of a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whose function.
    pub tenant: TenantName,
    /// In which environment.
    pub environment: EnvironmentName,
    /// Which function.
    pub function: FunctionName,
}

/// An address as a path, which every function has.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, environment, function } = self;
        if environment.is_production() {
            write!(f, "/t/{tenant}/{function}")
        } else {
            write!(f, "/t/{tenant}@{environment}/{function}")
        }
    }
}

/// Who else has pages at the scheme, host and port of an address, which is what a browser tells pages apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// All tenants.
    Shared,
    /// Nobody: the host is the tenant's own.
    Own,
}

/// An address and what follows it in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// The function.
    pub address: Address,
    /// Whose browser origin it is on.
    pub origin: Origin,
    /// The path up to and with the function's name; empty on a host of the tenant's own.
    pub base: &'a str,
    /// The path after it: empty, or starting with a slash.
    pub rest: &'a str,
}

impl Route<'_> {
    /// On the shared origin, the start of the paths that are the tenant's, with its slash: `/t/acme/`.
    #[must_use]
    pub fn tenant_path(&self) -> &str {
        let names = self.base.rfind('/').map_or(0, |slash| slash + 1);
        self.base.get(..names).unwrap_or_default()
    }
}

/// Host and path are no function's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// A path of another form.
    #[error("the path is not of the form /t/<tenant>/<function>[/<rest>]")]
    Path,
    /// A host of another form, below the base domain.
    #[error("the host is not of the form <tenant>.<base domain>")]
    Host,
}

/// The domain below which each tenant has a host of its own, such as `fn.example.com`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseDomain(String);

/// A text that is no base domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no domain: write names of letters, digits and hyphens with dots between them, such as fn.example.com, \
     189 bytes at most"
)]
pub struct BaseDomainError;

impl FromStr for BaseDomain {
    type Err = BaseDomainError;

    fn from_str(text: &str) -> Result<Self, BaseDomainError> {
        let domain = without_final_dot(text).to_ascii_lowercase();
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        // The last label of an IPv4 address is a number; no domain's is.
        let ends_in_number = domain.rsplit('.').next().is_none_or(is_number);
        let fits = domain.len() <= BASE_DOMAIN_BYTES_MAX && !ends_in_number;
        if fits && domain.split('.').all(is_label) { Ok(Self(domain)) } else { Err(BaseDomainError) }
    }
}

impl fmt::Display for BaseDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BaseDomain {
    /// What stands before the domain and its dot in a host; nothing when the host is not below it.
    fn labels_of<'a>(&self, host: &'a str) -> Option<&'a str> {
        let (labels, domain) = host.split_at_checked(host.len().checked_sub(self.0.len())?)?;
        if domain.eq_ignore_ascii_case(&self.0) { labels.strip_suffix('.') } else { None }
    }
}

/// A label of a host (RFC 1123, 2.1).
fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A host as DNS compares it: a dot at its end only says that it is complete.
fn without_final_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Reads a host, without its port, and a path.
///
/// # Errors
/// When they are of another form, or a name in them is malformed.
pub fn route<'a>(host: &str, path: &'a str, base: Option<&BaseDomain>) -> Result<Route<'a>, NoRoute> {
    match base.and_then(|base| base.labels_of(without_final_dot(host))) {
        Some(labels) => by_host(labels, path),
        None => by_path(path),
    }
}

fn by_host<'a>(labels: &str, path: &'a str) -> Result<Route<'a>, NoRoute> {
    if !path.starts_with('/') {
        return Err(NoRoute::Path);
    }
    let labels = labels.to_ascii_lowercase();
    let (environment, tenant) = match labels.split_once('.') {
        Some((environment, tenant)) => (environment.parse().map_err(|_| NoRoute::Host)?, tenant),
        None => (EnvironmentName::production(), labels.as_str()),
    };
    let tenant = tenant.parse().map_err(|_| NoRoute::Host)?;
    let address = Address { tenant, environment, function: FunctionName::main() };
    Ok(Route { address, origin: Origin::Own, base: "", rest: path })
}

fn by_path(path: &str) -> Result<Route<'_>, NoRoute> {
    let names = path.strip_prefix("/t/").ok_or(NoRoute::Path)?;
    let (tenant, function_and_rest) = names.split_once('/').ok_or(NoRoute::Path)?;
    let function_bytes = function_and_rest.find('/').unwrap_or(function_and_rest.len());
    let (function, rest) = function_and_rest.split_at_checked(function_bytes).ok_or(NoRoute::Path)?;
    let (tenant, environment) = match tenant.split_once('@') {
        Some((tenant, environment)) => (tenant, environment.parse().map_err(|_| NoRoute::Path)?),
        None => (tenant, EnvironmentName::production()),
    };
    let address = Address {
        tenant: tenant.parse().map_err(|_| NoRoute::Path)?,
        environment,
        function: function.parse().map_err(|_| NoRoute::Path)?,
    };
    let base = path.get(..path.len() - rest.len()).ok_or(NoRoute::Path)?;
    Ok(Route { address, origin: Origin::Shared, base, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(String, String, String, &str, &str)> {
        let route = route("any.example", path, None).ok()?;
        let Address { tenant, environment, function } = route.address;
        assert_eq!(route.origin, Origin::Shared);
        Some((tenant.into(), environment.into(), function.into(), route.base, route.rest))
    }

    #[test]
    fn an_address_reads_as_its_path() {
        for path in ["/t/acme/fn", "/t/acme@pr-1/a"] {
            let shown = route("", path, None).map(|route| route.address.to_string());
            assert_eq!(shown.as_deref(), Ok(path));
        }
        let tenant_path = |path| route("", path, None).map(|route| route.tenant_path().to_owned());
        assert_eq!(tenant_path("/t/acme/fn/a/b").as_deref(), Ok("/t/acme/"));
        assert_eq!(tenant_path("/t/acme@pr-1/fn").as_deref(), Ok("/t/acme@pr-1/"));
    }

    #[test]
    fn a_path_names_tenant_environment_and_function() {
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let with = |(a, b, c): (String, String, String), base, rest| Some((a, b, c, base, rest));
        assert_eq!(parts("/t/acme/fn"), with(own("acme", "production", "fn"), "/t/acme/fn", ""));
        assert_eq!(parts("/t/acme/fn/"), with(own("acme", "production", "fn"), "/t/acme/fn", "/"));
        assert_eq!(parts("/t/acme@pr-1/a/b/%2e"), with(own("acme", "pr-1", "a"), "/t/acme@pr-1/a", "/b/%2e"));
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in [
            "/",
            "/t",
            "/t/",
            "/t/acme",
            "/t//fn",
            "/t/acme/",
            "/x/acme/fn",
            "/t/Acme/fn",
            "/t/a@/fn",
            "/t/%61/fn",
            "/t/../fn",
        ] {
            assert_eq!(route("any.example", path, None), Err(NoRoute::Path), "{path}");
        }
    }

    /// Tenant and environment that a host below `fn.example.com` stands for.
    fn owner(host: &str) -> Result<Option<(String, String)>, NoRoute> {
        let base = BaseDomain("fn.example.com".to_owned());
        let route = route(host, "/t/other/fn", Some(&base))?;
        if route.origin == Origin::Shared {
            return Ok(None);
        }
        assert_eq!((route.base, route.rest, route.address.function.as_str()), ("", "/t/other/fn", "fn"));
        Ok(Some((route.address.tenant.into(), route.address.environment.into())))
    }

    #[test]
    fn a_host_below_the_base_domain_names_tenant_and_environment() {
        let own = |tenant: &str, environment: &str| Ok(Some((tenant.to_owned(), environment.to_owned())));
        for host in ["acme.fn.example.com", "ACME.Fn.Example.COM", "acme.fn.example.com."] {
            assert_eq!(owner(host), own("acme", "production"), "{host}");
        }
        assert_eq!(owner("a--b.fn.example.com"), own("a--b", "production"));
        assert_eq!(owner("pr-1.acme.fn.example.com"), own("acme", "pr-1"));
    }

    #[test]
    fn other_hosts_have_path_addresses() {
        for host in ["", "fn.example.com", "fn.example.com.", "example.com", "acmefn.example.com", "ä"] {
            assert_eq!(owner(host), Ok(None), "{host}");
        }
        for host in ["acme.fn.example.com.evil.example", "[::1]", "127.0.0.1"] {
            assert_eq!(owner(host), Ok(None), "{host}");
        }
    }

    #[test]
    fn malformed_hosts_below_the_base_domain_have_no_route() {
        for labels in ["", ".", "-acme", "a_b", "a.b.c", ".acme", "acme.", "*", "%61", "a@b"] {
            assert_eq!(owner(&format!("{labels}.fn.example.com")), Err(NoRoute::Host), "{labels}");
        }
    }

    #[test]
    fn a_request_for_no_path_has_no_route() {
        let base = BaseDomain("fn.example.com".to_owned());
        for path in ["*", ""] {
            assert_eq!(route("acme.fn.example.com", path, Some(&base)), Err(NoRoute::Path));
        }
    }

    #[test]
    fn base_domains_are_domains() {
        for good in ["fn.example.com", "localhost", "Fn.Example.COM.", "4.example"] {
            let lower = good.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(good.parse::<BaseDomain>(), Ok(BaseDomain(lower)));
        }
        let long = ["x".repeat(63).as_str(); 3].join(".");
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a.b:80",
            "http://a.b",
            "10.0.0.1",
            "[::1]",
            &long,
        ] {
            assert_eq!(bad.parse::<BaseDomain>(), Err(BaseDomainError), "{bad}");
        }
    }
}
