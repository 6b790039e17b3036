//! Addresses: where a node's admin API is, and where its functions are called. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use http::Uri;
use serde_json::Value;

use crate::name::TenantName;

/// The address of a node's admin API: `http://<host>[:<port>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeUrl {
    authority: String,
    host: String,
}

/// Why a text is no address of a node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NodeUrlError {
    #[error("it is not an address: write http://<host>:<port>")]
    Malformed,
    #[error(
        "this program speaks plain http only, for a private network; for a node elsewhere make a tunnel, \
         as `ssh -L 9090:127.0.0.1:9090 <host>` does, and use http://127.0.0.1:9090"
    )]
    Tls,
    #[error("it has a path or a name before the host: write only http://<host>:<port>")]
    TooMuch,
}

impl FromStr for NodeUrl {
    type Err = NodeUrlError;

    fn from_str(text: &str) -> Result<Self, NodeUrlError> {
        let uri: Uri = text.parse().map_err(|_| NodeUrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(NodeUrlError::Tls),
            _ => return Err(NodeUrlError::Malformed),
        }
        let authority = uri.authority().ok_or(NodeUrlError::Malformed)?;
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err(NodeUrlError::TooMuch);
        }
        Ok(Self { authority: authority.to_string(), host: authority.host().to_owned() })
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// What comes before `/t/<tenant>/…`, from the answer to `GET /v1/node`: the node's public URL; without one, or
/// when it listens on all interfaces and so names none, the host by which the admin API was reached.
pub(super) fn public_base(node: &NodeUrl, answer: &Value) -> Option<String> {
    let url = answer.get("public_url").and_then(Value::as_str).map(|url| url.trim_end_matches('/'));
    let listen = answer.get("public_listen").and_then(Value::as_str);
    match (url.filter(|url| !names_no_host(url)), listen) {
        (Some(url), _) => Some(url.to_owned()),
        (None, Some(listen)) => Some(base_of_listener(node, listen)),
        (None, None) => None,
    }
}

/// The tenant's own host, from the answer to `GET /v1/node`, when the node has a base domain.
pub(super) fn own_host(node: &NodeUrl, answer: &Value, tenant: &TenantName) -> Option<String> {
    let domain = answer.get("base_domain").and_then(Value::as_str)?;
    let base: Uri = public_base(node, answer)?.parse().ok()?;
    let port = base.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{tenant}.{domain}{port}/", base.scheme_str()?))
}

fn names_no_host(url: &str) -> bool {
    url.strip_prefix("http://")
        .and_then(|address| address.parse::<SocketAddr>().ok())
        .is_some_and(|address| address.ip().is_unspecified())
}

fn base_of_listener(node: &NodeUrl, listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("http://{}:{}", node.host, address.port()),
        _ => format!("http://{listen}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_a_host_and_a_port() -> Result<(), NodeUrlError> {
        for text in ["http://127.0.0.1:9090", "http://[::1]:9090", "http://box.internal"] {
            assert_eq!(text.parse::<NodeUrl>()?.to_string(), text);
            assert_eq!(format!("{text}/").parse::<NodeUrl>()?.to_string(), text);
        }
        Ok(())
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason() {
        let refusal = |text: &str| text.parse::<NodeUrl>().err();
        for text in ["", "localhost", "127.0.0.1:9090", "ftp://a", "http://", "/v1"] {
            assert_eq!(refusal(text), Some(NodeUrlError::Malformed), "{text}");
        }
        assert_eq!(refusal("https://a"), Some(NodeUrlError::Tls));
        for text in ["http://user@a:1", "http://a/v1", "http://a/?b"] {
            assert_eq!(refusal(text), Some(NodeUrlError::TooMuch), "{text}");
        }
    }

    #[test]
    fn functions_are_called_where_the_node_says() -> Result<(), NodeUrlError> {
        let node: NodeUrl = "http://box:9090".parse()?;
        let base = |url: Value, listen: &str| {
            public_base(&node, &json!({"public_url": url, "public_listen": listen})).unwrap_or_default()
        };
        assert_eq!(base(json!("https://fn.example/"), "0.0.0.0:8080"), "https://fn.example");
        assert_eq!(base(Value::Null, "10.0.0.7:8080"), "http://10.0.0.7:8080");
        assert_eq!(base(Value::Null, "0.0.0.0:8080"), "http://box:8080");
        assert_eq!(base(json!("http://0.0.0.0:8080"), "0.0.0.0:8080"), "http://box:8080");
        assert_eq!(base(json!("http://[::]:80"), "[::]:80"), "http://box:80");
        assert_eq!(public_base(&node, &json!({})), None);
        Ok(())
    }

    #[test]
    fn a_tenant_has_a_host_below_the_base_domain() -> anyhow::Result<()> {
        let (node, tenant): (NodeUrl, TenantName) = ("http://box:9090".parse()?, "acme".parse()?);
        let host = |url: Value, domain: Value| {
            let answer = json!({"public_url": url, "public_listen": "0.0.0.0:8080", "base_domain": domain});
            own_host(&node, &answer, &tenant)
        };
        assert_eq!(host(Value::Null, Value::Null), None);
        let domain = || json!("fn.example");
        assert_eq!(host(json!("https://fn.example/"), domain()).as_deref(), Some("https://acme.fn.example/"));
        assert_eq!(host(Value::Null, domain()).as_deref(), Some("http://acme.fn.example:8080/"));
        Ok(())
    }
}
