//! What one client address may have at a time: connections, and requests where a proxy stands in front.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use dormouse_tests::client::Connection;
use dormouse_tests::{TestNode, problem_of};

const CUT: &str = "dormouse_connections_cut_total{reason=\"client\"}";

/// A connection on which a request was answered, after some bytes.
fn answered(mut connection: Connection, start: &str) -> Result<Connection> {
    connection.send(start)?;
    connection.request("GET", "/", &[], b"")?;
    connection.response("GET")?.expect(404)?;
    Ok(connection)
}

fn is_let_go(mut connection: Connection, start: &str) -> Result<()> {
    // It may be closed before this arrives.
    let _ = connection.send(start);
    let said = connection.until_closed()?;
    ensure!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn an_address_has_so_many_connections() -> Result<()> {
    let node = TestNode::builder().flag("--client-connections-max", 3).start()?;
    node.expect_log("a client has too many connections");
    let from = |last| Connection::open_from(IpAddr::from([127, 0, 0, last]), node.public_address()?);
    let mut open = (0..3).map(|_| answered(from(1)?, "")).collect::<Result<Vec<_>>>()?;
    is_let_go(from(1)?, "")?;
    is_let_go(from(1)?, "")?;
    node.wait_for_metric(CUT, 2.0)?;
    // Others are not met by that.
    let other = answered(from(2)?, "")?;
    assert_eq!(node.metric("dormouse_clients_present")?, 2.0);
    open.truncate(2);
    node.wait_for_metric("dormouse_connections", 3.0)?;
    open.push(answered(from(1)?, "")?);
    drop((open, other));
    node.wait_for_metric("dormouse_connections", 0.0)?;
    node.wait_for_metric("dormouse_clients_present", 0.0)
}

#[test]
fn an_address_behind_a_proxy_has_so_many_requests() -> Result<()> {
    let node = TestNode::builder()
        .flag("--trusted-proxies", "127.0.0.0/8")
        .flag("--client-ip-header", "X-Forwarded-For")
        .flag("--client-connections-max", 1)
        .flag("--client-requests-max", 2)
        .start()?;
    node.expect_log("a client has too many requests");
    let tenant = node.tenant("misbehave")?;
    let send = |client: &str, deed: &str| -> Result<Connection> {
        let mut connection = node.connect()?;
        connection.request("GET", &tenant.path(deed), &[("x-forwarded-for", client)], b"")?;
        Ok(connection)
    };
    // The second is of the same network of 64 bits. All come by connections of the proxy's, which may have many.
    let waiting = [send("2001:db8::1", "/never")?, send("2001:db8::2", "/never")?];
    node.wait_for_metric("dormouse_instances", 2.0)?;
    let refused = send("2001:db8::3", "/ok")?.response("GET")?.expect(429)?;
    assert_eq!(problem_of(&refused)?, "client-busy");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(node.metric("dormouse_requests_total{outcome=\"client-busy\"}")?, 1.0);
    // Whoever the proxy does not name is the proxy, and forged names do not make one somebody else.
    for other in ["2001:db8:0:1::1", "192.0.2.1", "2001:db8::1, 192.0.2.2", "nobody"] {
        send(other, "/ok")?.response("GET")?.expect(200)?;
    }
    send("192.0.2.1, 2001:db8::4", "/ok")?.response("GET")?.expect(429)?;
    drop(waiting);
    node.wait_for_metric("dormouse_instances", 0.0)?;
    send("2001:db8::1", "/ok")?.response("GET")?.expect(200)?;
    node.wait_for_metric("dormouse_clients_present", 0.0)
}

#[test]
fn an_answer_counts_until_it_is_sent() -> Result<()> {
    let node = TestNode::builder().flag("--client-requests-max", 1).start()?;
    node.expect_log("a client has too many requests");
    let tenant = node.tenant("misbehave")?;
    let (connection, incoming) = tenant.start("/drip?chunks=2&ms=60000")?;
    assert_eq!(problem_of(&tenant.get("/ok")?.expect(429)?)?, "client-busy");
    drop((connection, incoming));
    node.wait_for_metric("dormouse_clients_present", 0.0)?;
    tenant.get("/ok")?.expect(200)?;
    Ok(())
}

#[test]
fn a_client_that_the_proxy_protocol_names_has_so_many_connections() -> Result<()> {
    let node = TestNode::builder()
        .flag("--trusted-proxies", "127.0.0.0/8")
        .flag("--client-ip-header", "proxy_protocol")
        .flag("--client-connections-max", 2)
        .start()?;
    node.expect_log("a client has too many connections");
    let of = |client: &str| format!("PROXY TCP6 {client} ::1 4711 443\r\n");
    let open = [
        answered(node.connect()?, &of("2001:db8::1"))?,
        answered(node.connect()?, &of("2001:db8::2"))?,
        answered(node.connect()?, &of("2001:db8:0:1::1"))?,
    ];
    is_let_go(node.connect()?, &of("2001:db8::3"))?;
    assert_eq!(node.metric(CUT)?, 1.0);
    // The proxy's own are its health checks.
    let own = (0..3).map(|_| answered(node.connect()?, "PROXY UNKNOWN\r\n")).collect::<Result<Vec<_>>>()?;
    drop((open, own));
    node.wait_for_metric("dormouse_connections", 0.0)?;
    node.wait_for_metric("dormouse_clients_present", 0.0)
}
