//! Connections: none stays for ever, and there are only so many.

use anyhow::{Result, ensure};
use dormouse_tests::{TestNode, eventually};

use crate::SHIPPED;

#[test]
fn a_client_that_says_too_little_is_let_go() -> Result<()> {
    let node = SHIPPED.node()?;
    // It takes as long as the node is patient, for all of them together.
    let mut silent = node.connect()?;
    let mut slow = node.connect()?;
    slow.send("GET / HTTP/1.1\r\nhost: x\r\nx-slow:")?;
    let mut dripping = node.connect()?;
    let mut done = node.connect()?;
    done.request("GET", "/", &[], b"")?;
    done.response("GET")?.expect(404)?;
    dripping.send("GET / HTTP/1.1\r\nhost: x\r\nx-dripping:")?;
    eventually("a head that comes byte by byte is cut off", || Ok(dripping.send("a").err()))?;
    for (what, connection) in [("silent", &mut silent), ("slow", &mut slow), ("done", &mut done)] {
        let said = String::from_utf8_lossy(&connection.until_closed()?).into_owned();
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{what}: {said}");
    }
    Ok(())
}

#[test]
fn connections_are_bounded() -> Result<()> {
    let node = TestNode::builder().flag("--connections-max", 2).start()?;
    node.wait_for_metric("dormouse_connections", 0.0)?;
    let mut first = node.connect()?;
    let mut second = node.connect()?;
    for connection in [&mut first, &mut second] {
        connection.request("GET", "/", &[], b"")?;
        connection.response("GET")?.expect(404)?;
    }
    node.wait_for_metric("dormouse_connections", 2.0)?;
    let mut third = node.connect()?;
    third.request("GET", "/", &[], b"")?;
    // It is served once there is room, and not before: the count never shows three.
    for _ in 0..20 {
        ensure!(node.metric("dormouse_connections")? <= 2.0);
    }
    drop(first);
    third.response("GET")?.expect(404)?;
    drop((second, third));
    node.wait_for_metric("dormouse_connections", 0.0)
}
