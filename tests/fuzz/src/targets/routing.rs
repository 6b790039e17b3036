//! Host and path to the address of a function: a line with the host, and the path after it.

use anyhow::{Context, Result, ensure};
use dormouse::routing::{Address, BaseDomain, Origin, Route, route};

/// What is parsed is safe to build paths from, and reads as what it was parsed from.
///
/// # Errors
/// When it is not.
pub fn run(data: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(data);
    let (host, path) = text.split_once('\n').unwrap_or(("", &text));
    let base: BaseDomain = "fn.example.com".parse()?;
    for base in [None, Some(&base)] {
        if let Ok(route) = route(host, path, base) {
            check(&route, path).with_context(|| format!("{host:?} {path:?}"))?;
        }
    }
    if let Ok(domain) = host.parse::<BaseDomain>() {
        ensure!(
            domain.to_string().parse() == Ok(domain),
            "{host:?} is another base domain when it is read again"
        );
    }
    Ok(())
}

fn check(found: &Route<'_>, path: &str) -> Result<()> {
    let Route { address, origin, base, rest } = found;
    ensure!(format!("{base}{rest}") == path, "the parts are not the whole: {found:?}");
    ensure!(rest.is_empty() || rest.starts_with('/'), "the rest is no path: {rest:?}");
    let Address { tenant, environment, function } = address;
    for name in [tenant.as_str(), environment.as_str(), function.as_str()] {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(!name.is_empty() && name.len() <= 63 && name.bytes().all(allowed), "no name: {name:?}");
    }
    let shown = address.to_string();
    let again = route("", &shown, None).with_context(|| format!("{shown} has no route"))?;
    ensure!(
        again.address == *address && again.rest.is_empty(),
        "{shown} is another address when it is read again"
    );
    match origin {
        Origin::Own => ensure!(base.is_empty(), "a base on an own host: {base:?}"),
        Origin::Shared => ensure!(path.starts_with(found.tenant_path()), "another tenant's: {found:?}"),
    }
    Ok(())
}
