//! What the first request costs: to a tenant that nobody has called, and to a server that has just been
//! started.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    fleet::{Fleet, Server},
    load::DOCUMENT,
    options::Options,
    recipe::Recipe,
    seed,
};

const RESTARTS: u64 = 5;

/// Single requests of one kind, timed by one client.
#[derive(Debug)]
pub(crate) struct Cold {
    /// Who was asked.
    pub(crate) server: &'static str,
    /// What was timed.
    pub(crate) what: &'static str,
    /// Each time in microseconds.
    pub(crate) times_us: Vec<f64>,
}

/// Times first requests with every server of the webhook workload, restarts with Dormouse as shipped.
pub(crate) async fn measure(options: &Options, fleet: &mut Fleet) -> Result<Vec<Cold>> {
    let mut all = Vec::new();
    for server in &mut fleet.servers {
        if !matches!(server.spec.key, "dormouse" | "bun") {
            continue;
        }
        eprintln!("timing first requests: {}", server.spec.name);
        all.extend(tenants(server, options.cold_tenants()).await?);
        if matches!(server.spec.recipe, Recipe::Dormouse { .. }) {
            all.extend(restarts(server).await?);
        }
    }
    Ok(all)
}

async fn tenants(server: &Server, count: u64) -> Result<[Cold; 3]> {
    let mut client = server.client().await?;
    // The connection's own first request is not what is measured.
    client.post_json(&seed::path(&seed::tenant(0)), DOCUMENT).await?;
    let (mut first, mut second, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        for (tenant, times) in [
            (seed::sleeping_tenant(n), &mut first),
            (seed::sleeping_tenant(n), &mut second),
            (seed::new_tenant(n), &mut new),
        ] {
            let started = Instant::now();
            client.post_json(&seed::path(&tenant), DOCUMENT).await?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    let name = server.spec.name;
    Ok([
        Cold { server: name, what: "first request to a sleeping tenant", times_us: first },
        Cold { server: name, what: "second request to it, at once", times_us: second },
        Cold { server: name, what: "first request ever, which makes the database", times_us: new },
    ])
}

async fn restarts(server: &mut Server) -> Result<[Cold; 2]> {
    let (mut start, mut first) = (Vec::new(), Vec::new());
    for n in 0..RESTARTS {
        let before = Instant::now();
        server.restart().await?;
        start.push(before.elapsed().as_secs_f64() * 1e6);
        let started = Instant::now();
        let mut client = server.client().await?;
        let answer = client.post_json(&seed::path(&seed::sleeping_tenant(n)), DOCUMENT).await?;
        first.push(started.elapsed().as_secs_f64() * 1e6);
        if answer.is_empty() {
            bail!("{}: an empty answer after a restart", server.spec.name);
        }
    }
    let name = server.spec.name;
    Ok([
        Cold { server: name, what: "stop and start, until it listens", times_us: start },
        Cold { server: name, what: "first request after that, with connecting", times_us: first },
    ])
}
