//! System calls: seccomp.
//!
//! The server and the databases' processes have a list of what they never need and an attacker of the kernel would: a
//! list of what they may call would have to name what SQLite, wasmtime, the allocator and libc call today, on each
//! machine, and one that was forgotten would be found in production. The compiler runs little code and gets that list.
//! What is refused fails with EPERM, as if the process had too few rights: whoever probes goes on without, where the
//! end of the process would be every tenant's.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Profile;

/// What no profile needs.
const NEVER: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Other namespaces, roots and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // The parts of the kernel that most exploits of it went through.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    libc::SYS_vmsplice,
    libc::SYS_memfd_secret,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[libc::SYS_kexec_file_load];

/// The same calls have a second number in the x32 ABI, where a kernel still has that.
#[cfg(target_arch = "x86_64")]
const SECOND_NUMBER: i64 = 0x4000_0000;

/// Sockets of a database's process: none.
const DATABASE_NEVER: &[i64] = &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// Threads that share no memory are processes, and these flags put them into namespaces of their own.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Kinds of sockets that the server needs: for its clients, functions and processes, and what libc asks the kernel of its networks.
const SOCKETS: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Writing into a terminal what its user seems to have typed.
const TERMINAL_INPUT: &[u64] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// What a compilation takes: its two files, memory, threads, time.
const COMPILING: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(super) fn restrict(profile: Profile<'_>) -> Result<String, String> {
    let is_compiler = matches!(profile, Profile::Compiler);
    let (rules, told) = if is_compiler { allowed()? } else { refused(profile)? };
    let refuse = SeccompAction::Errno(errno(libc::EPERM));
    let (named, others) =
        if is_compiler { (SeccompAction::Allow, refuse) } else { (refuse, SeccompAction::Allow) };
    // The flags of a clone3 lie in memory, where a filter does not see them. libc makes do with clone.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let without_clone3 = compile(clone3, SeccompAction::Errno(errno(libc::ENOSYS)), SeccompAction::Allow)?;
    apply_filter(&without_clone3).map_err(|error| error.to_string())?;
    apply_filter(&compile(rules, named, others)?).map_err(|error| error.to_string())?;
    Ok(told)
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

fn compile(rules: Rules, named: SeccompAction, others: SeccompAction) -> Result<BpfProgram, String> {
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(rules, others, named, machine).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

fn refused(profile: Profile<'_>) -> Result<(Rules, String), String> {
    let of_databases = match profile {
        Profile::Database { .. } => DATABASE_NEVER,
        Profile::Node { .. } | Profile::Compiler => &[],
    };
    let calls: Vec<i64> = [NEVER, NEVER_HERE, of_databases].concat();
    let told = format!("{} system calls are refused", calls.len());
    #[cfg(target_arch = "x86_64")]
    let calls = calls.iter().flat_map(|call| [*call, *call | SECOND_NUMBER]);
    let mut rules: Rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let namespaces: Result<Vec<_>, String> =
        NAMESPACES.iter().map(|flag| rule(vec![has_flag(*flag)?])).collect();
    rules.insert(libc::SYS_clone, namespaces?);
    let input: Result<Vec<_>, String> =
        TERMINAL_INPUT.iter().map(|request| rule(vec![condition(1, Is::Eq, *request)?])).collect();
    rules.insert(libc::SYS_ioctl, input?);
    if matches!(profile, Profile::Node { .. }) {
        let other: Result<Vec<_>, String> =
            SOCKETS.iter().map(|kind| condition(0, Is::Ne, u64::from(kind.unsigned_abs()))).collect();
        rules.insert(libc::SYS_socket, vec![rule(other?)?]);
    }
    Ok((rules, told))
}

fn allowed() -> Result<(Rules, String), String> {
    let mut rules: Rules = COMPILING.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![rule(vec![has_flag(libc::CLONE_THREAD)?])?]);
    // To the other filter.
    rules.insert(libc::SYS_clone3, Vec::new());
    let told = format!("all but {} system calls are refused", rules.len());
    Ok((rules, told))
}

fn has_flag(flag: i32) -> Result<SeccompCondition, String> {
    let flag = u64::from(flag.unsigned_abs());
    condition(0, Is::MaskedEq(flag), flag)
}

/// Of the low 32 bits of an argument: the kernel looks at no more of those that are compared here.
fn condition(argument: u8, is: Is, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, Width::Dword, is, value).map_err(|error| error.to_string())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}
