//! Routing: from a request's path to the address of a function. Pure: the same path always gives the same address.
//!
//! `/t/<tenant>[@<environment>]/<function>[/<rest>]`

use crate::name::{EnvironmentName, FunctionName, TenantName};

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

/// An address and what follows it in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// The function.
    pub address: Address,
    /// The path up to and with the function's name.
    pub base: &'a str,
    /// The path after it: empty, or starting with a slash.
    pub rest: &'a str,
}

/// The path is no function's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is not of the form /t/<tenant>/<function>[/<rest>]")]
pub struct NoRoute;

/// Reads a path.
///
/// # Errors
/// When it is of another form, or a name in it is malformed.
pub fn route(path: &str) -> Result<Route<'_>, NoRoute> {
    let names = path.strip_prefix("/t/").ok_or(NoRoute)?;
    let (tenant, function_and_rest) = names.split_once('/').ok_or(NoRoute)?;
    let function_bytes = function_and_rest.find('/').unwrap_or(function_and_rest.len());
    let (function, rest) = function_and_rest.split_at_checked(function_bytes).ok_or(NoRoute)?;
    let (tenant, environment) = match tenant.split_once('@') {
        Some((tenant, environment)) => (tenant, environment.parse().map_err(|_| NoRoute)?),
        None => (tenant, EnvironmentName::production()),
    };
    let address = Address {
        tenant: tenant.parse().map_err(|_| NoRoute)?,
        environment,
        function: function.parse().map_err(|_| NoRoute)?,
    };
    let base = path.get(..path.len() - rest.len()).ok_or(NoRoute)?;
    Ok(Route { address, base, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<(String, String, String, &str, &str)> {
        let route = route(path).ok()?;
        let Address { tenant, environment, function } = route.address;
        Some((tenant.into(), environment.into(), function.into(), route.base, route.rest))
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
            assert_eq!(route(path), Err(NoRoute), "{path}");
        }
    }
}
