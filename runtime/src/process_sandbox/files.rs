//! Files, ports and signals: landlock.
//!
//! A rule holds for a folder and what is in it, or for one file, not for its name. What is replaced while the process
//! runs, as resolv.conf and libraries are, is therefore allowed by its folder.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
    path_beneath_rules,
};

use super::Profile;

/// The newest rights that the profiles were written for.
const NEWEST: ABI = ABI::V7;

/// What the server reads beside its data: how names are looked up, the time zone, and what the kernel says of the machine
/// and of the process.
const READ: &[&str] = &[
    "/etc",
    "/proc",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr/share/zoneinfo",
];

/// Folders of the data that an operator may have put on another disk.
const LINKS: &[&str] = &["artifacts", "keys", "tenants"];

/// Devices that programs take for granted.
const DEVICES: &[&str] = &["/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// What landlock keeps a process from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    abi: ABI,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ABI {}: files", self.abi as i32)?;
        for (since, what) in [
            (ABI::V3, "truncation"),
            (ABI::V4, "TCP ports"),
            (ABI::V5, "devices"),
            (ABI::V6, "signals and abstract sockets"),
        ] {
            if self.abi >= since {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}

/// Reading, and starting programs.
fn programs() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir})
}

fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// Files and folders as databases and components need them: no programs, links, sockets or devices.
fn keeping() -> BitFlags<AccessFs> {
    reading()
        | make_bitflags!(AccessFs::{
            WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
        })
}

pub(super) fn restrict(profile: Profile<'_>) -> Result<Kept, String> {
    let status = ruleset(profile).map_err(|error| error.to_string())?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            Ok(Kept { abi: effective_abi.min(NEWEST) })
        }
        LandlockStatus::Available { .. } => Err("it is not enforced".to_owned()),
        LandlockStatus::NotEnabled => Err("the kernel was started without it (lsm=)".to_owned()),
        LandlockStatus::NotImplemented => {
            Err("the kernel does not have it (Linux 5.13, or newer)".to_owned())
        }
    }
}

fn ruleset(profile: Profile<'_>) -> Result<landlock::RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(make_bitflags!(Scope::{AbstractUnixSocket | Signal}))?;
    match profile {
        Profile::Node { data, ports } => {
            let ports = ports.iter().map(|port| Ok(NetPort::new(*port, AccessNet::BindTcp)));
            // Whom a function may connect to is decided for each request, by the sandbox of guests.
            ruleset
                .handle_access(AccessNet::BindTcp)?
                .create()?
                .add_rules(path_beneath_rules(places(data), keeping()))?
                .add_rules(path_beneath_rules(READ, reading()))?
                .add_rules(path_beneath_rules(own_scores(), AccessFs::WriteFile))?
                .add_rules(path_beneath_rules(DEVICES, make_bitflags!(AccessFs::{ReadFile | WriteFile})))?
                .add_rules(path_beneath_rules(own_programs(), programs()))?
                .add_rules(ports.collect::<Vec<Result<NetPort, RulesetError>>>())?
                .restrict_self()
        }
        Profile::Compiler => ruleset.handle_access(AccessNet::from_all(NEWEST))?.create()?.restrict_self(),
        Profile::Database { folder } => ruleset
            .handle_access(AccessNet::from_all(NEWEST))?
            .create()?
            .add_rules(path_beneath_rules(places(folder), keeping()))?
            .add_rules(path_beneath_rules(["/proc"], reading()))?
            .add_rules(path_beneath_rules(DEVICES, make_bitflags!(AccessFs::{ReadFile | WriteFile})))?
            .restrict_self(),
    }
}

/// A folder, and where those of its own folders lie that are links.
fn places(folder: &Path) -> Vec<PathBuf> {
    let links = LINKS.iter().map(|name| folder.join(name)).filter(|path| path.is_symlink());
    std::iter::once(folder.to_owned()).chain(links).collect()
}

/// Where a process says how soon the kernel is to end it when memory is out. Root could change the whole machine there.
fn own_scores() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("/proc")
}

/// This program, and the folders of the libraries and of the loader that it was started with.
fn own_programs() -> BTreeSet<PathBuf> {
    let program = std::env::current_exe().ok();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    let libraries = mapped.map(Path::new).filter(|file| Some(*file) != program.as_deref());
    let folders = libraries.filter_map(Path::parent).map(Path::to_owned);
    folders.chain(program.clone()).collect()
}
