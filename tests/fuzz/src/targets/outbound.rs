//! Where requests may go: a line with an entry of `allowed_outbound_hosts`, one with the address that a request is sent
//! to, and one with an IP address.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use dormouse::manifest::{OutboundHost, OutboundHosts, read_host};
use dormouse::network::Network;
use dormouse::outbound::address::special;
use dormouse::outbound::destination::Destination;
use http::Uri;
use url::Host;

/// Networks none of whose addresses may pass; written anew here, so that a mistake must be made twice.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/8",
    "100::/8",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
];

/// No special address passes, an entry allows what it says, and what is read reads as itself.
///
/// # Errors
/// When that is not so.
pub fn run(data: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (entry, uri, address) = (line(), line(), line());
    if let Ok(address) = address.parse() {
        check_address(address)?;
    }
    let destination = uri.parse::<Uri>().ok().and_then(|uri| Destination::of(&uri).ok());
    if let Some(destination) = &destination {
        check_destination(destination).with_context(|| uri.to_owned())?;
    }
    let Ok(rule) = OutboundHost::try_from(entry.to_owned()) else { return Ok(()) };
    ensure!(
        rule.as_str() == entry && OutboundHost::try_from(rule.to_string()).as_ref() == Ok(&rule),
        "{entry:?} changed"
    );
    if let Some(to) = destination
        && rule.allows(to.scheme(), &to.host, to.port)
    {
        check_allowed(entry, &to).with_context(|| format!("{entry} allows {uri}"))?;
    }
    Ok(())
}

fn check_address(address: IpAddr) -> Result<()> {
    let is_in = |network: &&str| network.parse::<Network>().is_ok_and(|network| network.contains(address));
    if let Some(network) = SPECIAL.iter().find(|network| is_in(network)) {
        let translated = "64:ff9b::/96".parse::<Network>()?;
        ensure!(
            special(address).is_some() || translated.contains(address),
            "{address} is of {network}, and passes"
        );
    }
    let inner = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => {
            let [.., high, low] = address.segments();
            Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
        }
    };
    for (form, must_be) in [
        (format!("::ffff:{inner}"), special(inner.into())),
        (format!("64:ff9b::{inner}"), special(inner.into())),
    ] {
        ensure!(special(form.parse()?) == must_be, "{form} is judged otherwise than {inner}");
    }
    for form in [format!("::{inner}"), format!("64:ff9b:1::{inner}"), format!("::ffff:0:{inner}")] {
        ensure!(special(form.parse()?).is_some(), "{form} passes");
    }
    Ok(())
}

fn check_destination(destination: &Destination) -> Result<()> {
    let again =
        Destination::of(&format!("{destination}/").parse()?).context("it is none when it is read again")?;
    ensure!(again == *destination, "{destination} is {again} when it is read again");
    if let Host::Domain(name) = &destination.host {
        ensure!(name.parse::<IpAddr>().is_err(), "the name is an address: {name}");
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        ensure!(!name.is_empty() && name.bytes().all(is_name), "no name: {name:?}");
    }
    ensure!(
        !OutboundHosts::default().allow(destination.scheme(), &destination.host, destination.port),
        "a function without entries may send there"
    );
    Ok(())
}

fn check_allowed(entry: &str, to: &Destination) -> Result<()> {
    let (scheme, rest) = entry.split_once("://").context("an entry without a scheme")?;
    ensure!(scheme == "*" || scheme.eq_ignore_ascii_case(to.scheme()), "another scheme");
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => rest,
    };
    match (host.strip_prefix("*."), &to.host) {
        (Some(domain), Host::Domain(name)) => {
            let domain = read_host(domain).context("a domain that is none")?.to_string();
            ensure!(name.ends_with(&format!(".{domain}")), "a name that is not below");
        }
        (Some(_), _) => anyhow::bail!("an address below a domain"),
        (None, _) if host == "*" => {}
        (None, Host::Domain(_)) => ensure!(read_host(host).as_ref() == Some(&to.host), "another name"),
        (None, _) if host.contains('/') => {}
        (None, address) => ensure!(read_host(host).as_ref() == Some(address), "another address"),
    }
    Ok(())
}
