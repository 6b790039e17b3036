//! SIGKILL or a power cut at any moment: what was acknowledged is there after the restart.

use anyhow::{Context, Result, ensure};
use dormouse_tests::durability::crash_loop;
use dormouse_tests::durability::power_loss::{self, Plan};
use dormouse_tests::{Stop, TestNode, guest};

/// A short run of `cargo run --release --bin crash-loop`.
const KILLS: u32 = 30;

/// A short run of `cargo run --release --bin power-loss`.
const CUTS: u32 = 60;

#[test]
fn whatever_was_acknowledged_survives_kills() -> Result<()> {
    let seed = fastrand::u64(..);
    let report = crash_loop::run(KILLS, seed, &mut |_| ())?;
    ensure!(
        report.tally.acknowledged > 100 && report.tally.control > 0,
        "hardly anything was tried: {report:?}"
    );
    ensure!(report.under_load > 0 && report.under_load < KILLS, "one kind of moment was missed: {report:?}");
    Ok(())
}

#[test]
fn acknowledged_tenants_and_deploys_survive_a_kill() -> Result<()> {
    let mut node = TestNode::start()?;
    let token = node.token()?.to_owned();
    for n in 0..5 {
        let name = format!("kept-{n}");
        node.create_tenant(&name)?;
        node.deploy(&name, "fn", &guest("hello")?)?;
        node.restart(Stop::Kill)?;
        assert_eq!(node.token()?, token, "the token changed");
        for kept in 0..=n {
            let answer = node.request("GET", &format!("/t/kept-{kept}/fn"), &[], b"")?.expect(200)?;
            assert_eq!(answer.text(), "Hello from Dormouse\n");
        }
    }
    Ok(())
}

#[test]
fn a_tenant_that_was_deleted_stays_deleted() -> Result<()> {
    let mut node = TestNode::start()?;
    node.create_tenant("gone")?;
    node.deploy("gone", "fn", &guest("hello")?)?;
    node.admin("DELETE", "/v1/tenants/gone", b"")?.expect(204)?;
    node.restart(Stop::Kill)?;
    node.request("GET", "/t/gone/fn", &[], b"")?.expect(404)?;
    Ok(())
}

#[test]
fn whatever_was_acknowledged_survives_power_cuts() -> Result<()> {
    let plan = Plan { cuts: CUTS, seed: fastrand::u64(..), heeds_syncs: true };
    let report = power_loss::run(plan, &mut |_| ())?;
    ensure!(
        report.tally.acknowledged > 100 && report.tally.unanswered_found > 0,
        "nothing was at stake: {report:?}"
    );
    Ok(())
}

#[test]
fn a_disk_that_lies_is_found_out() -> Result<()> {
    let plan = Plan { cuts: CUTS, seed: fastrand::u64(..), heeds_syncs: false };
    let found = power_loss::run(plan, &mut |_| ());
    let error = found.err().context("no power cut lost anything of a disk that keeps nothing")?;
    let error = format!("{error:#}");
    ensure!(error.contains("of seed"), "it was not a cut that failed: {error}");
    Ok(())
}
